"""PairRM's network: DebertaV2 and a head, by the published key names (`pretrained_model.*`, `head_layer.{1,4}.*`)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import DebertaV2Config, DebertaV2Model
from transformers.models.deberta_v2.modeling_deberta_v2 import DebertaV2PreTrainedModel
from transformers.utils import logging

from aipo.rankers.checkpoint import PairRMError

CONFIG_KEYS = ("source_prefix_id", "cand1_prefix_id", "cand2_prefix_id", "drop_out", "n_tasks")


class PairRMModel(DebertaV2PreTrainedModel):
    """Scores two candidates of one prompt by the last hidden states of the three marker tokens."""

    def __init__(self, config: DebertaV2Config) -> None:
        super().__init__(config)
        width = config.hidden_size
        self.marker_ids = marker_ids(config)
        self.pretrained_model = DebertaV2Model(config)
        self.head_layer = nn.Sequential(
            nn.Dropout(config.drop_out),
            nn.Linear(2 * width, width),
            nn.Tanh(),
            nn.Dropout(config.drop_out),
            nn.Linear(width, config.n_tasks),
        )
        self.post_init()

    def forward(self, ids: Tensor, mask: Tensor, markers: Tensor) -> Tensor:
        """(rows,) logits, above 0 where the first candidate is better.

        `ids` and `mask`: (rows, length), mask 1 for tokens. `markers`: (rows, 3) positions of prompt, first, second.
        """
        hidden = self.pretrained_model(input_ids=ids, attention_mask=mask).last_hidden_state
        source, first, second = hidden[torch.arange(len(ids), device=ids.device).unsqueeze(1), markers].unbind(1)
        # Three vectors a row: in float32 they cost nothing, and a difference of rounded scores would tie.
        wide = next(self.head_layer.parameters()).dtype
        left, right = (self.head_layer(torch.cat([source, one], dim=-1).to(wide)) for one in (first, second))
        return (left - right).mean(-1)


def marker_ids(config: DebertaV2Config) -> tuple[int, int, int]:
    """The ids of the tokens before prompt, first and second candidate."""
    return config.source_prefix_id, config.cand1_prefix_id, config.cand2_prefix_id


def pairrm_config(path: str, revision: str | None) -> DebertaV2Config:
    """The checkpoint's config.json. PairRMError where it lacks PairRM's keys."""
    config = DebertaV2Config.from_pretrained(path, revision=revision)
    if absent := [key for key in CONFIG_KEYS if not hasattr(config, key)]:
        raise PairRMError(
            f"{path}/config.json: expected PairRM's keys {', '.join(CONFIG_KEYS)}, got none named {', '.join(absent)}; "
            "use llm-blender/PairRM-hf or a folder in its layout (llm-blender/PairRM has another)"
        )
    return config


def load_pairrm(path: str, revision: str | None, dtype: torch.dtype) -> PairRMModel:
    """The model in evaluation mode, from safetensors alone. PairRMError unless every weight is there and used.

    The backbone is in `dtype`, the head in float32 at least.
    """
    logging.disable_progress_bar()
    config = pairrm_config(path, revision)
    model, report = PairRMModel.from_pretrained(
        path, config=config, revision=revision, dtype=dtype, use_safetensors=True, attn_implementation="eager",
        output_loading_info=True,
    )  # fmt: skip
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if wrong := sorted(str(key) for key in report[kind]):
            raise PairRMError(
                f"{path}: expected PairRM's keys, got {len(wrong)} {kind.replace('_', ' ')}: {', '.join(wrong[:4])}; "
                "use llm-blender/PairRM-hf or a folder in its layout"
            )
    model.head_layer.to(torch.promote_types(dtype, torch.float32))
    return model.eval()
