"""What everything that talks to a server shares: when to try again, what to write down at once, what never to show."""

from aipo.remote.attempts import Attempts, BadReply, EndpointError, Fatal, GivenUp, RetryPolicy, Stopped, may_cost
from aipo.remote.journal import Journal, JournalError, Line
from aipo.remote.redaction import redact

__all__ = [
    "Attempts",
    "BadReply",
    "EndpointError",
    "Fatal",
    "GivenUp",
    "Journal",
    "JournalError",
    "Line",
    "RetryPolicy",
    "Stopped",
    "may_cost",
    "redact",
]
