"""Judges: chats in, replies out. Prompts and parsers belong to the benchmarks."""

from aipo.judges.endpoints import AzureEndpoint, OpenAIEndpoint, Price
from aipo.judges.judge import Judge, JudgeError
from aipo.judges.length_only import LengthOnlyJudge
from aipo.judges.local import LocalJudge
from aipo.judges.openai_judge import OpenAIJudge
from aipo.judges.replay import ReplayJudge

__all__ = [
    "AzureEndpoint",
    "Judge",
    "JudgeError",
    "LengthOnlyJudge",
    "LocalJudge",
    "OpenAIEndpoint",
    "OpenAIJudge",
    "Price",
    "ReplayJudge",
]
