"""A sweep without models: artifacts and run.json files as the pipeline writes them, with synthetic rows."""

from __future__ import annotations

import hashlib
import json
import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

# pytest puts tests/ on the path, where `analysis` would name this folder; a package found later on the path wins.
sys.path.append(str(Path(__file__).resolve().parents[2]))

from aipo.artifacts import seal  # noqa: E402
from aipo.jobs import SCHEMA  # noqa: E402
from aipo.records import Completion, Metric, Pair, to_row, write_jsonl, write_parquet  # noqa: E402

# Objective -> tokens gained per iteration; the score follows the length a little and the objective a lot.
GAINS = {"dpo": 6.0, "dpo_nll": 5.2, "simpo": 6.6, "alpha_dpo": 4.6, "aipo": 3.6}
# Benchmark -> primary metric and length metric, in the miniature and officially.
BENCHMARKS = {
    "gold": ("gold_score", "mean_tokens"),
    "alpaca_eval": ("lc_win_rate", "mean_tokens"),
    "arena_hard": ("win_rate", "mean_tokens"),
    "mt_bench": ("rating", "mean_tokens"),
}
OFFICIAL = {
    "alpaca_eval": ("lc_win_rate", "mean_chars"),
    "arena_hard": ("win_rate", "mean_tokens_cl100k"),
    "mt_bench": ("rating", "mean_chars"),
}


@dataclass
class FakeSweep:
    """Writes artifacts into `store` and jobs into `folder`."""

    folder: Path
    store: Path
    jobs: int = 0
    judge: str = "gold"
    judges: dict[str, str] = field(default_factory=dict)
    """Who graded a scores artifact, by its fingerprint."""

    def artifact(
        self,
        stage: str,
        key: Sequence[Any],
        write: Callable[[Path], None],
        *,
        config: dict | None = None,
        parents: dict | None = None,
        **report: Any,
    ) -> str:
        """A finished artifact named by its key, with what `write` puts into its folder; returns its fingerprint."""
        digest = hashlib.sha256(repr((stage, *key)).encode()).hexdigest()[:16]
        folder = self.store / stage / digest
        if folder.exists():  # jobs share artifacts
            return digest
        folder.mkdir(parents=True)
        write(folder)
        manifest = {"stage": stage, "fingerprint": digest, "version": 1}
        manifest |= {"config": config or {}, "parents": parents or {}}
        manifest |= {"created": "2026-01-01T00:00:00Z", "seconds": 1.0, "counts": {}, "dropped": {}, "commit": "0"}
        manifest |= {"packages": {}, **report}
        seal(folder, manifest)
        return digest

    def score(
        self,
        key: Sequence[Any],
        metrics: Sequence[Metric],
        *,
        judge: str | None = None,
        model: str | None = None,
        assets: str = "aipo.miniature.Miniature",
    ) -> str:
        """Scores with the judgments they came from; returns the fingerprint of the scores."""
        name = judge or self.judge
        answers = self.artifact(
            "answers", (key, assets), lambda folder: None, config={"benchmark": {"assets": {"_target_": assets}}}
        )
        config = {"judge": {"name": name}, "identity": {"name": name}, "benchmark": {}}
        replies = [{"text": '{"model": "x"}', "model": model}]
        judgments = self.artifact(
            "judgments",
            (key, str(config), model),
            lambda folder: write_jsonl(folder / "judgments.jsonl", [{"replies": replies}]),
            config=config,
        )
        rows = json.dumps(to_row(list(metrics)))
        digest = self.artifact(
            "scores",
            (key, judgments, rows, assets),
            lambda folder: (folder / "metrics.json").write_text(rows),
            parents={"answers": answers, "judgments": judgments},
        )
        self.judges[digest] = name
        return digest

    def pairs(
        self, key: Sequence[Any], rows: Sequence[tuple[int, int, float]], dropped: dict[str, int]
    ) -> tuple[str, str]:
        """Pairs and reference log-probs; a row is (chosen tokens, rejected tokens, reference margin)."""
        pairs, margins = [], []
        for number, (chosen, rejected, margin) in enumerate(rows):
            sides = [Completion("text", tuple(range(length + 1)), "stop") for length in (chosen, rejected)]
            pairs.append(Pair(f"p{number}", f"q{number}", (1, 2), *sides, chosen_score=1.0, rejected_score=0.0))
            margins.append({"pair_id": f"p{number}", "chosen": -10.0 + margin, "rejected": -10.0})
        digest = self.artifact(
            "pairs", key, lambda folder: write_parquet(folder / "pairs.parquet", pairs), dropped=dropped
        )
        rows_of = [row | {"chosen_prefix": 0.0, "rejected_prefix": 0.0} for row in reversed(margins)]
        reference = self.artifact("reference", key, lambda folder: write_parquet(folder / "reference.parquet", rows_of))
        return digest, reference

    def job(
        self,
        objective: str,
        seed: int = 0,
        *,
        iterations: int = 5,
        overrides: Sequence[str] = (),
        benchmarks: Sequence[str] = tuple(BENCHMARKS),
        status: str = "done",
        error: str | None = None,
        diagnostic: bool = True,
        recipe: str = "pairrm_gen_si_uf",
        official: bool = False,
        n_pairs: int = 120,
        **changes: Any,
    ) -> dict[str, Any]:
        """One run with synthetic numbers: every objective starts from the same base and the same first pairs."""
        shared = tuple(overrides)
        named = OFFICIAL if official else BENCHMARKS
        assets = {"assets": "aipo.benchmarks.official.Official"} if official else {}
        points = []
        for iteration in range(-1, iterations):
            trained = (objective, shared) if iteration >= 0 else ()
            rng = random.Random(repr((trained, seed, iteration)))
            length = 16 + GAINS.get(objective, 5.0) * (iteration + 1) * (0.9 + 0.2 * rng.random()) + 4 * len(shared)
            gold = 0.7 + 0.22 * (1 - 0.5 ** (iteration + 1)) + rng.gauss(0, 0.008)
            scores = {}
            for name in benchmarks:
                key = (name, trained, seed, iteration)
                scores[name] = self.score(key, metrics(name, gold, length, rng), **assets)
                if diagnostic and name != "gold":
                    share = min(50 + 2 * (length - 16), 99.0)
                    by_length = Metric(
                        *(("rating", share / 10) if name == "mt_bench" else ("win_rate", share)), None, 9, 0
                    )
                    scores[f"{name}@length_only"] = self.score(key, [by_length], judge="length_only", **assets)
            policy = hashlib.sha256(repr((trained, seed, iteration)).encode()).hexdigest()[:16]
            point = {"iteration": iteration, "policy": policy, "pairs": None, "reference": None, "train": None}
            if iteration >= 0:
                source = (seed, iteration) if iteration == 0 else (objective, shared, seed, iteration)
                rows = []
                pair_rng = random.Random(repr(source))
                for _ in range(n_pairs):
                    chosen, rejected = (max(1, round(pair_rng.gauss(mean, 8))) for mean in (24, 20))
                    rows.append((chosen, rejected, pair_rng.gauss(-0.3 * (chosen - rejected), 6)))
                pairs, reference = self.pairs(source, rows, {"tie": 3 + iteration, "identical": 1, "truncated": 0})
                point |= {"pairs": pairs, "reference": reference, "train": "e" * 16}
            points.append(point | {"scores": scores})
        run = {"status": status, "error": error, "objective": objective, "seed": seed}
        run |= {"overrides": [f"objective={objective}", f"seed={seed}", *overrides], "official": official}
        run |= {"model": "miniature", "data": recipe, "store": str(self.store), "points": points}
        run["benchmarks"] = {
            name: dict(zip(("primary_metric", "length_metric"), named[name], strict=True)) for name in benchmarks
        }
        run |= changes
        self.write(run)
        return run

    def write(self, run: dict[str, Any], job: str | None = None) -> Path:
        """Writes a run.json and returns its path. `run`: as `job` returns it, its scores by `benchmark[@judge]`."""
        folder = self.folder / "jobs" / (job or str(self.jobs))
        self.jobs += job is None
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "run.json").write_text(json.dumps(self._record(run)), encoding="utf-8")
        return folder / "run.json"

    def _record(self, run: dict[str, Any]) -> dict[str, Any]:
        """The same by the schema of `aipo.jobs`; what `run` lacks stays out."""
        row = {key: value for key, value in run.items() if key != "official"} | {"schema": SCHEMA}
        row |= {"needs_world": True, **settings_of(run.get("overrides", ()))}
        if isinstance(run.get("points"), list):
            row["points"] = [
                point | {"scores": [self._score_row(*item) for item in point["scores"].items()]}
                for point in run["points"]
            ]
        if "benchmarks" in run:
            row["benchmarks"] = [
                {"name": name, "official": run.get("official", False), **info}
                for name, info in run["benchmarks"].items()
            ]
        return row

    def _score_row(self, key: str, digest: str) -> dict[str, Any]:
        benchmark, _, diagnostic = key.partition("@")
        judge = diagnostic or self.judges.get(digest, self.judge)
        return {"benchmark": benchmark, "judge": judge, "diagnostic": bool(diagnostic), "fingerprint": digest}


def settings_of(overrides: Sequence[str]) -> dict[str, Any]:
    """What a job's settings and choices would be after these overrides, as far as they say."""
    settings: dict[str, Any] = {"model": {"seed": 0}}
    choices: dict[str, str] = {}
    for item in overrides:
        key, _, value = item.partition("=")
        *path, last = key.split(".")
        if not path and last not in ("seed", "objective"):
            choices[last] = value
        if last in ("seed", "objective") and not path:
            continue
        node = settings
        for part in path:
            node = node.setdefault(part, {})
        node[last] = {"option": value} if not path else value
    return {"settings": settings, "choices": choices}


def metrics(benchmark: str, gold: float, length: float, rng: random.Random) -> list[Metric]:
    """Plausible metrics of one benchmark for a policy of this gold score and mean length in tokens."""
    tokens = Metric("mean_tokens", length, None, 100, 0)
    chars = Metric("mean_chars", 5.3 * length, None, 100, 0)
    if benchmark == "gold":
        return [Metric("gold_score", gold, (gold - 0.02, gold + 0.02), 100, 0), tokens]
    if benchmark == "mt_bench":
        rating = 10 * gold + rng.gauss(0, 0.1)
        return [Metric("rating", rating, (rating - 0.3, rating + 0.3), 78, 2), tokens]
    rate = 50 + 150 * (gold - 0.7) + rng.gauss(0, 1)
    rates = [Metric("win_rate", rate + 0.3 * length, (rate - 3, rate + 3), 99, 1)]
    if benchmark == "alpaca_eval":
        rates.append(Metric("lc_win_rate", rate, (rate - 3, rate + 3), 99, 1))
    return [*rates, tokens, chars, Metric("mean_tokens_cl100k", 1.1 * length, None, 100, 0)]


def empty_sweep(root: Path) -> FakeSweep:
    """A sweep without jobs in root/results/sweep, its store in root/outputs."""
    folder = root / "results" / "sweep"
    folder.mkdir(parents=True)
    return FakeSweep(folder, root / "outputs")


@pytest.fixture
def fake_sweep(tmp_path: Path) -> FakeSweep:
    """A sweep without jobs."""
    return empty_sweep(tmp_path)


@pytest.fixture(scope="session")
def small_sweep(tmp_path_factory: pytest.TempPathFactory) -> FakeSweep:
    """Two objectives, two seeds and a job that failed, one benchmark: quick to draw. Not to be changed."""
    sweep = empty_sweep(tmp_path_factory.mktemp("small"))
    for objective in ("dpo", "aipo"):
        for seed in (0, 1):
            sweep.job(objective, seed, iterations=3, benchmarks=("alpaca_eval",), n_pairs=40)
    options = {"iterations": 1, "benchmarks": ("alpaca_eval",), "status": "failed", "error": "<b>|loss|</b>"}
    sweep.job("simpo", **options)
    return sweep


@pytest.fixture
def paper_sweep(fake_sweep: FakeSweep) -> Callable[..., FakeSweep]:
    """The miniature's sweep: objectives x seeds."""

    def build(objectives: Sequence[str] = ("dpo", "aipo"), seeds: Sequence[int] = (0,), **options: Any) -> FakeSweep:
        for objective in objectives:
            for seed in seeds:
                fake_sweep.job(objective, seed, **options)
        return fake_sweep

    return build
