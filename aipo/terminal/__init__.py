"""What a person sees in a terminal: one screen of at most 100 columns, and how far a long step is."""

from aipo.terminal.progress import Bar, bar, listen
from aipo.terminal.screen import WIDEST, Handler, console, errors, say, show_details

__all__ = ["WIDEST", "Bar", "Handler", "bar", "console", "errors", "listen", "say", "show_details"]
