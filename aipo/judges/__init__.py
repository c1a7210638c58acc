"""Judges: chats in, replies out. Prompts and parsers belong to the benchmarks."""

from aipo.judges.endpoints import AzureEndpoint, OpenAIEndpoint, Price, Priced
from aipo.judges.judge import Clerk, Judge, JudgeError, PaidJudge, Receipt
from aipo.judges.length_only import LengthOnlyJudge
from aipo.judges.local import LocalJudge
from aipo.judges.no_judge import NoJudge
from aipo.judges.openai_judge import OpenAIJudge
from aipo.judges.replay import ReplayJudge
from aipo.judges.replies import ReplyStore
from aipo.judges.store import NotKept, judged, stored

__all__ = [
    "AzureEndpoint",
    "Clerk",
    "Judge",
    "JudgeError",
    "LengthOnlyJudge",
    "LocalJudge",
    "NoJudge",
    "NotKept",
    "OpenAIEndpoint",
    "OpenAIJudge",
    "PaidJudge",
    "Price",
    "Priced",
    "Receipt",
    "ReplayJudge",
    "ReplyStore",
    "judged",
    "stored",
]
