"""The official questions, judge prompts and baselines, and the official tools' file formats."""

from aipo.benchmarks.official.instructions import InstructionFile, OfficialIFBench
from aipo.benchmarks.official.questions import OfficialAlpacaEval, OfficialArenaHard, OfficialMTBench

__all__ = [
    "InstructionFile",
    "OfficialAlpacaEval",
    "OfficialArenaHard",
    "OfficialIFBench",
    "OfficialMTBench",
]
