"""The policy that servers serve."""

from __future__ import annotations

import pytest
import torch
from toy_models import BOS, END, save, tiny

from aipo.models.policy import PolicyRef


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> PolicyRef:
    """A model that only says words, never `<unk>` or `<s>`, so that text and ids are one to one."""
    model = tiny("Llama", 30)
    with torch.no_grad():
        model.lm_head.weight[END] *= 2  # so that greedy answers end, too
        model.lm_head.weight[[BOS, 2]] = 0  # a logit of 0, far below the best of 28 wide ones
    return PolicyRef(save(model, tmp_path_factory.mktemp("served")))
