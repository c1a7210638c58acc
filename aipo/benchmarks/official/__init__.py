"""The official questions, judge prompts and baselines, and the official tools' file formats."""

from aipo.benchmarks.official.questions import OfficialAlpacaEval, OfficialArenaHard, OfficialMTBench

__all__ = [
    "OfficialAlpacaEval",
    "OfficialArenaHard",
    "OfficialMTBench",
]
