"""Every ranker and source in conf/ composes, passes the check and has what the pipeline asks for."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
from composing import composed
from hydra.utils import instantiate

from aipo.data import Source
from aipo.pipeline.check import check
from aipo.rankers import Ranker

ROOT = Path(__file__).resolve().parents[2]
CHECKED = ["data=pairrm_gen_uf", "data/source=constraints", "judge=none", "benchmark=[]"]
REQUIRED = {  # values that a file leaves to the user, and what a ranker cannot do without
    "ranker": {
        "learned": ["ranker.path=x/y"],
        "reward_model": ["ranker.path=x/y"],
        "verifiable": CHECKED,
        "verifiable_biased": CHECKED,
        "verifiable_unbiased": CHECKED,
    },
    "data/source": {"local": ["data.source.path=x.json"], "mixture": ["data.source.second.path=x.json"]},
}
REAL = ["judge=length_only", "benchmark=[]", "objective=dpo"]


def names(group: str) -> list[str]:
    return sorted(path.stem for path in (ROOT / "conf" / group).glob("*.yaml"))


def checked(overrides: list[str]) -> dict[str, Any]:
    return check(composed(*overrides))


def arguments(kind: type, method: str) -> list[str]:
    return list(inspect.signature(getattr(kind, method)).parameters)


@pytest.mark.parametrize("name", names("ranker"))
def test_rankers(name: str) -> None:
    node = checked([f"ranker={name}", *REQUIRED["ranker"].get(name, [])])["ranker"]
    ranker = instantiate(node, _convert_="all")
    assert isinstance(ranker.name, str) and ranker.name
    for method in ("rank", "win_probabilities"):
        assert arguments(type(ranker), method) == arguments(Ranker, method)


@pytest.mark.parametrize("name", names("data/source"))
def test_sources(name: str) -> None:
    real = [] if name == "miniature" else [*REAL, "ranker=length_only"]
    node = checked([f"data/source={name}", *real, *REQUIRED["data/source"].get(name, [])])["data"]["source"]
    source = instantiate(node, _convert_="all")
    for method in ("identity", "load"):
        assert arguments(type(source), method) == arguments(Source, method)
    assert all(isinstance(value, str) for value in source.identity().values())
