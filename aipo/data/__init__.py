"""Data: where pool prompts and their responses come from, new prompts, and pairs."""

from aipo.data.constraints import ConstraintPrompts
from aipo.data.local import LocalFiles
from aipo.data.mixture import Mixture
from aipo.data.pairs import PairFilters
from aipo.data.prompt_clusters import KMeansClusters, SentenceEmbedding, TfidfEmbedding
from aipo.data.recipe import Recipe
from aipo.data.selection import BestAgainstWorst, LengthMatched, RandomPair, Selection, ShorterOfNearBest
from aipo.data.self_instruct import SelfInstruct
from aipo.data.source import Source
from aipo.data.ultrafeedback import UltraFeedback, UltraFeedbackBinarized

__all__ = [
    "BestAgainstWorst",
    "ConstraintPrompts",
    "KMeansClusters",
    "LengthMatched",
    "LocalFiles",
    "Mixture",
    "PairFilters",
    "RandomPair",
    "Recipe",
    "Selection",
    "SelfInstruct",
    "SentenceEmbedding",
    "ShorterOfNearBest",
    "Source",
    "TfidfEmbedding",
    "UltraFeedback",
    "UltraFeedbackBinarized",
]
