"""Benchmarks: questions, judge prompts, verdict parsers and scores."""

from aipo.benchmarks.alpaca_eval import AlpacaEval, TextAnnotator, WeightedAnnotator
from aipo.benchmarks.arena_hard import ArenaHard
from aipo.benchmarks.benchmark import Benchmark, PromptBenchmark
from aipo.benchmarks.constraints import ConstraintBenchmark
from aipo.benchmarks.instruction_following import InstructionFollowing
from aipo.benchmarks.mt_bench import MTBench
from aipo.benchmarks.mt_bench_pairwise import MTBenchPairwise
from aipo.benchmarks.official.cl100k import Cl100kTokens
from aipo.benchmarks.token_counters import EstimatedTokens, PolicyTokens

__all__ = [
    "AlpacaEval",
    "ArenaHard",
    "Benchmark",
    "Cl100kTokens",
    "ConstraintBenchmark",
    "EstimatedTokens",
    "InstructionFollowing",
    "MTBench",
    "MTBenchPairwise",
    "PolicyTokens",
    "PromptBenchmark",
    "TextAnnotator",
    "WeightedAnnotator",
]
