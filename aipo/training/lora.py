"""Low-rank adapters (LoRA, arXiv 2106.09685) through the `peft` extra."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aipo.components import missing_package

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Lora:
    """Train adapters of this `rank` only; the policy that is written has them merged into its weights."""

    rank: int = 16
    alpha: float = 32.0
    """The adapter's output is scaled by alpha / rank."""
    target_modules: str | tuple[str, ...] = "all-linear"
    """Names of linear layers, or all of them but the head."""

    def __post_init__(self) -> None:
        if isinstance(self.rank, bool) or not isinstance(self.rank, int) or not 1 <= self.rank <= 65_536:
            raise ValueError(f"trainer.lora.rank must be a whole number from 1 to 65,536, got {self.rank!r}")
        number = isinstance(self.alpha, int | float) and not isinstance(self.alpha, bool)
        if not (number and 0 < self.alpha < math.inf):
            raise ValueError(f"trainer.lora.alpha must be a finite number above 0, got {self.alpha!r}")
        if not isinstance(self.target_modules, str):  # YAML and JSON give lists
            object.__setattr__(self, "target_modules", tuple(self.target_modules))

    def wrap(self, model: PreTrainedModel, seed: int) -> Any:
        """The PEFT model around `model`, whose linear layers get adapters in place. Needs the extra `peft`."""
        try:
            from peft import LoraConfig, get_peft_model
        except ImportError as error:
            raise ImportError(f"trainer.lora needs the {missing_peft()[0]}") from error
        import torch

        modules = self.target_modules if isinstance(self.target_modules, str) else list(self.target_modules)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return get_peft_model(
                model,
                LoraConfig(
                    r=self.rank, lora_alpha=self.alpha, lora_dropout=0.0, target_modules=modules, task_type="CAUSAL_LM"
                ),
            )


def as_lora(value: Lora | Mapping[str, Any] | bool | None) -> Lora | None:
    """What `trainer.lora` means: true is Lora with its defaults, a mapping its settings; null and false are none."""
    if value is None or value is False:
        return None
    if value is True:
        return Lora()
    if isinstance(value, Lora):
        return value
    names = [field.name for field in dataclasses.fields(Lora)]
    if not isinstance(value, Mapping):
        raise ValueError(f"trainer.lora must be true, false, null or settings ({', '.join(names)}), got {value!r}")
    if unknown := sorted(set(map(str, value)) - set(names)):
        raise ValueError(f"trainer.lora.{unknown[0]}: unknown setting; expected {', '.join(names)}")
    return Lora(**value)


def missing_peft() -> list[str]:
    """One line where the package behind adapters is not installed."""
    return missing_package("peft", extra="peft")
