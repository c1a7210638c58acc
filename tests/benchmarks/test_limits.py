"""`benchmark.<name>.limit`: the first questions only, in artifacts of their own, and nothing changed without it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from composing import composed

from aipo.components import build_component, content_of
from aipo.pipeline.check import ConfigError, check
from aipo.pipeline.loop import walk
from aipo.pipeline.run import build_run

BENCHMARKS = ("gold", "alpaca_eval", "mt_bench", "arena_hard")
FINGERPRINTS = {
    ("base gold", "answers"): "9e827f5f42235f84",
    ("base gold", "scores"): "39ad257fed8d641c",
    ("base alpaca_eval", "answers"): "1225fa93ffc1067a",
    ("base alpaca_eval", "scores"): "70e14fa1f88bdef7",
    ("base mt_bench", "answers"): "d73d0830837a584b",
    ("base mt_bench", "judgments"): "81b73ac40ae0160c",
    ("base arena_hard", "answers"): "cc3d51a6f0891f7d",
    ("base arena_hard", "scores"): "193d30772104f43d",
}
"""Of the miniature, made before benchmarks could be limited."""


def test_without_a_limit_every_fingerprint_is_what_it_was(tmp_path: Path) -> None:
    config = check(composed("iteration.iterations=1", f"store.root={tmp_path}", "sweep=s"))
    found = {(event.note, event.stage): event.fingerprint for event in walk(build_run(config))}
    assert {key: found[key] for key in FINGERPRINTS} == FINGERPRINTS


def test_one_setting_limits_every_benchmark() -> None:
    config = check(composed("limit=10", "benchmark.gold.limit=20", "sweep=s"))
    assert [config["benchmark"][name]["limit"] for name in BENCHMARKS] == [20, 10, 10, 10]
    with pytest.raises(ConfigError, match="limit: expected"):
        check(composed("limit=ten", "sweep=s"))


def test_a_limit_is_part_of_the_answers_and_so_of_all_that_follows(tmp_path: Path) -> None:
    limits = [f"benchmark.{name}.limit=10" for name in BENCHMARKS]
    config = check(composed("iteration.iterations=1", f"store.root={tmp_path}", "sweep=s", *limits))
    found = {(event.note, event.stage): event.fingerprint for event in walk(build_run(config))}
    assert not set(found.values()) & set(FINGERPRINTS.values())


@pytest.mark.parametrize("name", BENCHMARKS)
def test_limited_questions_are_the_first_of_all(name: str) -> None:
    node = check(composed("sweep=s"))["benchmark"][name]
    whole, cut = build_component(node), build_component({**node, "limit": 7})
    asked = list(whole.user_turns().items())
    assert list(cut.user_turns().items()) == asked[:7] and len(asked) > 7
    assert cut.n_answers * len(asked) == whole.n_answers * 7
    assert cut.n_judge_requests * len(asked) == whole.n_judge_requests * 7
    assert not cut.official
    assert "limit" not in content_of(node) and content_of({**node, "limit": 7})["limit"] == 7


def test_official_assets_cut_what_belongs_to_a_question() -> None:
    from aipo.benchmarks.alpaca_eval_assets import AlpacaEvalAssets
    from aipo.benchmarks.arena_hard import ArenaHardAssets

    items = tuple({"instruction": str(number), "dataset": "d"} for number in range(9))
    texts = tuple("abcdefghi")
    alpaca = AlpacaEvalAssets(items, texts, "t", difficulty=tuple(map(float, range(9))))
    assert alpaca.first(2) == replace(alpaca, items=items[:2], baseline_outputs=("a", "b"), difficulty=(0.0, 1.0))
    questions = tuple({"question_id": name, "turns": [{"content": name}]} for name in texts)
    arena = ArenaHardAssets(questions, {name: name.upper() for name in texts}, "s", "p")
    assert arena.first(2).baseline_answers == {"a": "A", "b": "B"}


def test_a_limit_below_what_the_length_model_needs_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"alpaca_eval.limit must be at least 5, got 3"):
        check(composed("benchmark.alpaca_eval.limit=3", "sweep=s"))
