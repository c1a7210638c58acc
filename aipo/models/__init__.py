"""Language models: where a policy is found, its tokens, and its log-probs of completions."""

from aipo.models.policy import PolicyRef
from aipo.models.shape import ModelShape

__all__ = [
    "ModelShape",
    "PolicyRef",
]
