"""One round of preference training, with any objective."""

from aipo.training.lora import Lora
from aipo.training.trainer import Trainer

__all__ = [
    "Lora",
    "Trainer",
]
