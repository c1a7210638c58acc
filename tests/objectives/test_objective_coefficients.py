"""Coefficients that cannot be trained with are refused where the objective is built."""

from __future__ import annotations

from functools import partial

import pytest

from aipo.objectives import Objective, aipo


@pytest.mark.parametrize("name", ["beta", "alpha", "nll_weight"])
@pytest.mark.parametrize("value", [float("inf"), float("nan"), 1e300])
def test_a_coefficient_without_a_finite_loss_is_refused(name: str, value: float) -> None:
    coefficients = {"beta": 0.1, "alpha": 0.07, "nll_weight": 0.2} | {name: value}
    with pytest.raises(ValueError, match=r"objective mine: .*(finite|must be)"):
        Objective("mine", partial(aipo, **coefficients))
