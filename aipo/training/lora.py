"""Low-rank adapters (LoRA, arXiv 2106.09685) through the `peft` extra."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

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
        if self.rank < 1:
            raise ValueError(f"lora.rank must be at least 1, got {self.rank}")
        if not isinstance(self.target_modules, str):  # YAML and JSON give lists
            object.__setattr__(self, "target_modules", tuple(self.target_modules))

    def wrap(self, model: PreTrainedModel, seed: int) -> Any:
        """The PEFT model around `model`, whose linear layers get adapters in place. Needs `pip install aipo[peft]`."""
        try:
            from peft import LoraConfig, get_peft_model
        except ImportError as error:
            raise ImportError("trainer.lora needs the peft extra: pip install 'aipo[peft]'") from error
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
