"""The miniature: a small world with computable answer quality, offline, on two CPU cores, in minutes."""

from aipo.miniature.base_model import MiniatureModel
from aipo.miniature.benchmark_assets import MiniatureAlpacaEval, MiniatureArenaHard, MiniatureMTBench
from aipo.miniature.gold_benchmark import GoldBenchmark
from aipo.miniature.gold_judge import GoldJudge
from aipo.miniature.proxy import ProxyRanker
from aipo.miniature.source import MiniatureSource

__all__ = [
    "GoldBenchmark",
    "GoldJudge",
    "MiniatureAlpacaEval",
    "MiniatureArenaHard",
    "MiniatureMTBench",
    "MiniatureModel",
    "MiniatureSource",
    "ProxyRanker",
]
