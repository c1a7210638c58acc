"""Which policy is the reference of a round, seen in the plan: nothing is run."""

from __future__ import annotations

from pathlib import Path

import pytest
from composing import composed

from aipo.pipeline.check import ConfigError, check
from aipo.pipeline.loop import walk
from aipo.pipeline.run import build_run


def planned(folder: Path, *overrides: str) -> list[tuple[str, str]]:
    """(stage, fingerprint) of everything that a run of three rounds would do."""
    given = ["iteration.iterations=3", "benchmark=[]", f"store.root={folder}/none", *overrides]
    return [(event.stage, event.fingerprint) for event in walk(build_run(check(composed(*given))))]


def of(stage: str, events: list[tuple[str, str]]) -> list[str]:
    return [fingerprint for name, fingerprint in events if name == stage]


def test_an_average_is_made_after_each_round_that_another_follows(tmp_path: Path) -> None:
    moving, fixed = planned(tmp_path), planned(tmp_path, "iteration.reference=initial")
    slow = planned(tmp_path, "iteration.reference=ema")
    assert len(of("average", slow)) == 2 and not of("average", moving) and not of("average", fixed)
    # The first round's reference is the base model in each case; afterwards the three differ.
    first, later = {of("reference", events)[0] for events in (moving, fixed, slow)}, set()
    for events in (moving, fixed, slow):
        later |= set(of("reference", events)[1:])
    assert len(first) == 1 and len(later) == 6


def test_the_decay_shapes_the_reference_and_nothing_before_it(tmp_path: Path) -> None:
    one = planned(tmp_path, "iteration.reference=ema", "iteration.ema_decay=0.4")
    other = planned(tmp_path, "iteration.reference=ema", "iteration.ema_decay=0.9")
    assert of("train", one)[0] == of("train", other)[0] and of("pairs", one)[1] == of("pairs", other)[1]
    assert of("reference", one)[1] != of("reference", other)[1]
    assert planned(tmp_path) == planned(tmp_path, "iteration.ema_decay=0.9")  # of no use there, and of no effect


@pytest.mark.parametrize("decay", [0.0, 1.0, -0.1])
def test_a_decay_outside_0_to_1_is_refused(decay: float) -> None:
    with pytest.raises(ConfigError, match="iteration.ema_decay must be above 0 and below 1, got"):
        check(composed(f"iteration.ema_decay={decay}"))
