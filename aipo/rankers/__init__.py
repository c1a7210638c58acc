"""Rankers: order the candidates of one prompt."""

from aipo.rankers.length_only import LengthOnlyRanker
from aipo.rankers.length_penalized import LengthPenalizedRanker
from aipo.rankers.llm_judge import LLMJudgeRanker
from aipo.rankers.pairrm import PairRM
from aipo.rankers.ranker import JudgedRanker, Ranker
from aipo.rankers.reward_model import RewardModel
from aipo.rankers.verifiable import VerifiableRanker

__all__ = [
    "JudgedRanker",
    "LLMJudgeRanker",
    "LengthOnlyRanker",
    "LengthPenalizedRanker",
    "PairRM",
    "Ranker",
    "RewardModel",
    "VerifiableRanker",
]
