"""The YAML files: they compose together, bind, build, and say what the constructors say."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from composing import composed
from hydra.utils import instantiate
from omegaconf import OmegaConf

from aipo.benchmarks.official.assets import MissingAsset

CONF = Path(__file__).resolve().parents[2] / "conf"
NAMES = ["mt_bench", "mt_bench_pairwise", "alpaca_eval", "alpaca_eval_text", "arena_hard"]


@pytest.fixture(scope="module")
def nodes() -> dict:
    config = composed(f"+benchmark=[{','.join(NAMES)}]", name=None)
    return OmegaConf.to_container(config.benchmark, resolve=True)


@pytest.mark.parametrize("name", NAMES)
def test_config_states_every_parameter_at_its_official_value(nodes: dict, name: str) -> None:
    built = instantiate(nodes[name], _convert_="all")
    assert built.name == name
    assert {key for key in nodes[name] if key != "_target_"} == {field.name for field in dataclasses.fields(built)}
    default = type(built)(assets=built.assets, name=name)
    exceptions = {"alpaca_eval_text": {"annotator"}, "arena_hard": {"token_counter"}}.get(name, set())
    for field in dataclasses.fields(built):
        if field.name not in exceptions:
            assert getattr(built, field.name) == getattr(default, field.name), field.name


@pytest.mark.parametrize("name", NAMES)
def test_missing_assets_stop_the_benchmark_at_once(
    nodes: dict, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIPO_ASSETS", str(tmp_path))
    built = instantiate(nodes[name], _convert_="all")
    assert isinstance(built.primary_metric, str)
    assert isinstance(built.length_metric, str)
    assert built.uses_judge
    with pytest.raises(MissingAsset, match=str(tmp_path)):
        built.answer(None, seed=0)
