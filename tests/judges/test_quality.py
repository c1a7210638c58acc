"""The judge report, on verdicts whose bias is known."""

from __future__ import annotations

import math
import random

import pytest

from aipo.judges.quality import QualityError, agreement, length_preference, position
from aipo.records import Judgment


def verdict(question: int, order: str, value: float | None, turn: int = 1) -> Judgment:
    return Judgment(f"q{question}", turn, order, value, (), "judge", "")


def both(question: int, policy_first: float | None, baseline_first: float | None) -> list[Judgment]:
    return [verdict(question, "policy_first", policy_first), verdict(question, "baseline_first", baseline_first)]


def named(estimates) -> dict:
    return {estimate.name: estimate for estimate in estimates}


def test_a_judge_that_always_takes_the_first_flips_always() -> None:
    found = named(position([item for q in range(20) for item in both(q, 1.0, 0.0)]))
    assert found["flip_rate"].value == 100 and found["flip_rate"].ci95 == (100, 100) and found["flip_rate"].n == 20
    assert found["first_shown_preference"].value == 100


def test_a_fair_judge_never_flips() -> None:
    found = named(position([item for q in range(20) for item in both(q, float(q % 2), float(q % 2))]))
    assert found["flip_rate"].value == 0 and found["first_shown_preference"].value == 50


def test_flips_by_hand_and_unscored_left_out() -> None:
    rows = both(0, 1.0, 0.0) + both(1, 1.0, 0.5) + both(2, 0.75, 1.0) + both(3, 0.5, 0.5) + both(4, None, 1.0)
    found = named(position(rows))
    assert found["flip_rate"].value == pytest.approx(100 * (1 + 0.5 + 0 + 0) / 4) and found["flip_rate"].n == 4
    shown_first = [1.0, 1.0, 1.0, 0.5, 0.75, 0.0, 0.5, 0.5]
    assert found["first_shown_preference"].value == pytest.approx(100 * sum(shown_first) / 8)


def test_one_order_is_not_enough() -> None:
    with pytest.raises(QualityError, match="both_orders=true"):
        position([verdict(0, "policy_first", 1.0)])


def test_a_judge_of_length_alone_correlates_fully() -> None:
    rng = random.Random(0)
    gaps = [rng.randint(-300, 300) for _ in range(40)]
    chars = {(f"q{q}", 1): 500 + gap for q, gap in enumerate(gaps)}
    baseline = {key: 500 for key in chars}
    values = [1 / (1 + math.exp(-gap / 100)) for gap in gaps]
    judgments = [verdict(q, "policy_first", value) for q, value in enumerate(values)]
    estimate = length_preference(judgments, chars, baseline)
    assert estimate.value == pytest.approx(1) and estimate.ci95 == pytest.approx((1, 1))
    against = [verdict(q, "policy_first", 1 - value) for q, value in enumerate(values)]
    assert length_preference(against, chars, baseline).value == pytest.approx(-1)
    constant = [verdict(q, "policy_first", 0.5) for q in range(40)]
    assert math.isnan(length_preference(constant, chars, baseline).value)


def test_kappa_by_hand() -> None:
    # 2x2: both win 20, both lose 15, only the first wins 5, only the second wins 10: po 0.7, pe 0.5, kappa 0.4.
    first = [1.0] * 25 + [0.0] * 25
    second = [1.0] * 20 + [0.0] * 5 + [1.0] * 10 + [0.0] * 15
    found = named(
        agreement(
            [verdict(q, "policy_first", value) for q, value in enumerate(first)],
            [verdict(q, "policy_first", value) for q, value in enumerate(second)],
        )
    )
    assert found["agreement"].value == pytest.approx(70) and found["kappa"].value == pytest.approx(0.4)
    assert found["kappa"].ci95[0] < 0.4 < found["kappa"].ci95[1]


def test_a_judge_agrees_with_itself_and_ratings_are_weighted() -> None:
    ratings = [verdict(q, "single", float(1 + q % 10)) for q in range(30)]
    assert named(agreement(ratings, ratings))["kappa"].value == pytest.approx(1)
    near = [verdict(q, "single", float(min(10, 2 + q % 10))) for q in range(30)]
    far = [verdict(q, "single", float(10 - q % 10)) for q in range(30)]
    assert named(agreement(ratings, near))["kappa"].value > 0.8 > named(agreement(ratings, far))["kappa"].value
    with pytest.raises(QualityError, match="share no scored request"):
        agreement(ratings, [verdict(99, "single", 5.0)])


def test_weighted_kappa_knows_the_points_that_nobody_gave() -> None:
    """By hand: mean squared distance 6.7; by chance 64.6 + 74.5 - 2 x 7 x 7.9 = 28.5. Nobody gave 2 to 8."""
    first, second = (1, 1, 9, 9, 10, 10, 1, 9, 10, 10), (1, 9, 9, 10, 10, 10, 1, 10, 9, 10)
    found = named(
        agreement(
            [verdict(q, "single", float(value)) for q, value in enumerate(first)],
            [verdict(q, "single", float(value)) for q, value in enumerate(second)],
        )
    )
    assert found["kappa"].value == pytest.approx(1 - 6.7 / 28.5, abs=1e-12)


def test_the_command_reads_artifacts(tmp_path, capsys) -> None:
    from aipo.artifacts import seal
    from aipo.judges.__main__ import main
    from aipo.records import Answer, Completion, write_jsonl, write_parquet

    for name, length in (("policy", 30), ("base", 10)):
        (tmp_path / "answers" / name).mkdir(parents=True)
        turns = [Answer(f"q{q}", (Completion("x" * (length + q), (1,), "stop"),)) for q in range(12)]
        write_parquet(tmp_path / "answers" / name / "answers.parquet", turns)
        seal(tmp_path / "answers" / name, {"stage": "answers", "fingerprint": name, "parents": {}})
    folder = tmp_path / "judgments" / "fingerprint"
    folder.mkdir(parents=True)
    write_jsonl(folder / "judgments.jsonl", [item for q in range(12) for item in both(q, q / 11, q / 11)])
    parents = {"answers": "policy", "baseline": "base"}
    seal(folder, {"stage": "judgments", "fingerprint": "fingerprint", "parents": parents})
    assert main(["quality", str(folder), "--second", str(folder)]) == 0
    printed = capsys.readouterr().out
    assert "| flip_rate | 0 | 0 to 0 | 12 |" in printed and "| kappa | 1 | 1 to 1 | 12 |" in printed
    assert "- 24 of 24 verdicts are scored" in printed
    assert main(["quality", str(tmp_path)]) == 1
    assert "expected a judgments artifact" in capsys.readouterr().err
    for path in (tmp_path / "answers" / "base" / "answers.parquet", folder / "judgments.jsonl"):
        path.write_bytes(path.read_bytes().replace(b"q1", b"q2", 1))
        assert main(["quality", str(folder)]) == 1
        assert f"{path}: the manifest lists SHA-256" in capsys.readouterr().err
