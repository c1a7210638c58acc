"""Settings that make no sense are refused where they are built, with what was expected and what was given."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from composing import composed

from aipo.components import build_component, content_of
from aipo.pipeline.check import check
from aipo.training.lora import Lora, as_lora
from aipo.training.memory import default_tokens_per_batch
from aipo.training.trainer import Trainer

TRAINER = Trainer(learning_rate=1e-3)
INFINITE, NO_NUMBER = float("inf"), float("nan")


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        *(("learning_rate", value, "above 0 and at most 1") for value in (0, -1e-3, INFINITE, NO_NUMBER, 1e30, True)),
        *(("warmup_ratio", value, r"in \[0, 1\)") for value in (-0.1, 1, INFINITE, NO_NUMBER)),
        *(("weight_decay", value, "from 0 to 100") for value in (-1, INFINITE, NO_NUMBER)),
        *(("betas", value, r"two numbers in \[0, 1\)") for value in ((0.9,), (0.9, 1), (INFINITE, 0.9))),
        *(("epsilon", value, "above 0 and at most 1") for value in (0, INFINITE, NO_NUMBER)),
        *(("max_grad_norm", value, "above 0, or null") for value in (0, -1, INFINITE, NO_NUMBER)),
        *(("memory_limit_gib", value, "above 0, or null") for value in (0, INFINITE)),
        *(("checkpoint_every_seconds", value, "above 0, or null for never") for value in (0, -1, INFINITE)),
        *(("evaluation_share", value, "from 0 to 0.5") for value in (-0.1, 0.6, NO_NUMBER)),
        *(("max_length", value, "from 2 to 100,000,000, or null") for value in (1, 0, 10**23, 2.5, True)),
        *(("processes", value, "from 1 to 16,384,") for value in (0, 10**6, None)),
        *(("nodes", value, "from 1 to 4,096,") for value in (0, 10**6)),
        *(("pairs_per_step", value, "from 1 to 10,000,000,") for value in (0, 10**21)),
        *(("epochs", value, "from 1 to 10,000,") for value in (0, 10**23)),
        *(("dtype", value, "float32, or null") for value in ("bfloat16", 32)),
        ("keep_masters", 1, "true or false"),
        ("layout", "rows", "cheapest, or null"),
        ("strategy", "zero3", "ddp or fsdp2"),
        ("lora", 5, "true, false, null or settings"),
    ],
)
def test_a_value_out_of_range_is_refused(name: str, value: Any, expected: str) -> None:
    with pytest.raises(ValueError, match=f"trainer.{name} must be .*{expected}.* got") as caught:
        replace(TRAINER, **{name: value})
    assert len(str(caught.value)) < 200


def test_adapters_are_given_in_four_ways() -> None:
    assert as_lora(None) is None and as_lora(False) is None
    assert as_lora(True) == Lora() == as_lora(Lora())
    assert replace(TRAINER, lora={"rank": 8, "target_modules": ["q_proj"]}).adapters == Lora(8, 32.0, ("q_proj",))
    with pytest.raises(ValueError, match="trainer.lora.rnk: unknown setting; expected rank, alpha, target_modules"):
        replace(TRAINER, lora={"rnk": 8})
    for settings, message in (
        ({"rank": 0}, "trainer.lora.rank must be a whole number from 1"),
        ({"rank": 2.5}, "trainer.lora.rank must be a whole number from 1"),
        ({"alpha": INFINITE}, "trainer.lora.alpha must be a finite number above 0"),
        ({"alpha": 0}, "trainer.lora.alpha must be a finite number above 0"),
    ):
        with pytest.raises(ValueError, match=message):
            replace(TRAINER, lora=settings)


@pytest.mark.parametrize("override", ["trainer.lora=true", "trainer.lora={rank: 16}", "trainer.lora={alpha: 32}"])
def test_adapters_from_the_command_line(override: str) -> None:
    assert build_component(check(composed(override))["trainer"]).adapters == Lora()


def test_adapters_without_their_package_are_told_before_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aipo.components.importlib.util.find_spec", lambda name: None)
    assert replace(TRAINER, lora=True).missing() == ["package peft: pip install -c constraints.txt -e '.[peft]'"]
    assert TRAINER.missing() == []


def test_the_reference_depends_on_the_trainer_only_where_its_numbers_do() -> None:
    assert TRAINER.reference_settings() == {} == replace(TRAINER, processes=8).reference_settings()
    assert replace(TRAINER, strategy="fsdp2").reference_settings() == {}  # one process has no shards
    assert replace(TRAINER, strategy="fsdp2", processes=8).reference_settings() == {"strategy": "fsdp2"}
    assert replace(TRAINER, dtype="float32").reference_settings() == {"dtype": "float32"}
    assert replace(TRAINER, layout="cheapest").reference_settings() == {"layout": "cheapest"}


def test_a_layout_that_nobody_chose_is_no_setting() -> None:
    # Stages and checkpoints of before the choice are met again.
    assert "layout" not in TRAINER.identity()
    assert replace(TRAINER, layout="cheapest").identity() == TRAINER.identity() | {"layout": "cheapest"}
    node = {"_target_": "aipo.training.Trainer", "learning_rate": 1e-5}
    assert content_of(node | {"layout": None}) == node
    assert content_of(node | {"layout": "cheapest"}) == node | {"layout": "cheapest"}


def test_micro_batches_without_a_number_follow_device_and_layout() -> None:
    assert [default_tokens_per_batch("cpu", layout) for layout in (None, "cheapest")] == [2048, 640]
    assert [default_tokens_per_batch("cuda", layout) for layout in (None, "cheapest")] == [16384, 16384]
