"""The artifacts behind the page: which there are, and what each one's manifest says."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from aipo.artifacts.files import MANIFEST
from aipo.components import build_component
from aipo.jobs import Point
from analysis.collect import AnalysisError, Problem, Run, Sweep, read_manifest


class Shelf:
    """Manifests of a store, each read and checked once. What cannot be read is noted in `gaps`."""

    def __init__(self) -> None:
        self._known: dict[tuple[Path, str, str], dict[str, Any] | None] = {}
        self._gaps: dict[tuple[Path, str, str], str] = {}

    @property
    def gaps(self) -> tuple[str, ...]:
        """What could not be read, and why."""
        return tuple(dict.fromkeys(self._gaps.values()))

    def lacks(self, stages: Collection[str]) -> bool:
        """Whether an artifact of one of these stages was asked for and could not be read."""
        return any(stage in stages for _, stage, _ in self._gaps)

    def gap(self, store: Path, stage: str, digest: str) -> str | None:
        """Why an artifact cannot be read; None where it can."""
        self.manifest(store, stage, digest)
        return self._gaps.get((store, stage, digest))

    def manifest(self, store: Path, stage: str, digest: str | None) -> dict[str, Any] | None:
        """The manifest of an artifact whose files are what it says; None, and a gap noted, where they are not."""
        if digest is None:
            return None
        key = (store, stage, digest)
        if key not in self._known:
            try:
                self._known[key] = read_manifest(store, stage, digest)
            except AnalysisError as error:
                self._known[key] = None
                self._gaps[key] = str(error)
        return self._known[key]

    def parents(self, store: Path, stage: str, digest: str | None) -> dict[str, str]:
        """The fingerprints of what the artifact was made from; none where it cannot be read."""
        return dict((self.manifest(store, stage, digest) or {}).get("parents", {}))

    def counts(self, store: Path, stage: str, digest: str | None) -> dict[str, Any]:
        """What its manifest counts; nothing where it cannot be read."""
        return dict((self.manifest(store, stage, digest) or {}).get("counts", {}))

    def file(self, store: Path, stage: str, digest: str | None, name: str) -> Path | None:
        """The path of a file that the artifact's manifest lists, or None."""
        manifest = self.manifest(store, stage, digest)
        if manifest is None or name not in manifest.get("files", {}):
            return None
        return store / stage / str(digest) / name


def stages_of(point: Point) -> Iterator[tuple[str, str]]:
    """The artifacts that a point names, as stage and fingerprint."""
    for stage in ("ranking", "pairs", "reference", "train", "kl"):
        if (digest := getattr(point, stage)) is not None:
            yield stage, digest
    yield from (("scores", score.fingerprint) for score in point.scores)
    yield from (("proxy", proxy.fingerprint) for proxy in point.proxies)


PARENT_STAGES = {"baseline": "answers"} | {
    name: name for name in ("answers", "judgments", "candidates", "ranking", "pairs", "reference")
}
"""By the name that a manifest gives a parent: its stage. Policies are left out, for no analysis reads weights."""


def behind(sweep: Sweep) -> tuple[list[Path], list[Problem]]:
    """Every artifact that the report and the page read, and what is wrong with those that they cannot."""
    found: dict[Path, None] = {}
    problems: dict[str, Problem] = {}
    shelf = Shelf()

    def look(run: Run, point: Point, stage: str, digest: str) -> dict[str, str]:
        found[(run.store / stage / digest).absolute()] = None
        parents = shelf.parents(run.store, stage, digest)
        if (gap := shelf.gap(run.store, stage, digest)) is not None:
            problems.setdefault(gap, Problem(run.job, point.iteration, gap))
        return parents

    for run in sweep.runs:
        for point in run.points:
            for stage, digest in stages_of(point):
                for name, parent in look(run, point, stage, digest).items():
                    if name in PARENT_STAGES:
                        look(run, point, PARENT_STAGES[name], parent)
    return list(found), list(problems.values())


def are_questions_here(sweep: Sweep) -> bool:
    """Whether every benchmark's questions can be read; else they may come without any artifact changing."""
    return all(set(questions(run)) == set(run.record.settings.get("benchmark", {})) for run in sweep.runs)


def available(sweep: Sweep, artifacts: Iterable[Path]) -> list[str]:
    """What shapes report and page beside the sweep's frames: which of the artifacts (of `behind`) are there, with the
    hashes of their manifests, in which those of all their files stand, and which questions."""
    found = {f"{path.parent.name}/{path.name} {_hash(path / MANIFEST)}" for path in artifacts if path.is_dir()}
    asked = {f"{name}: {len(turns)} questions" for run in sweep.runs for name, turns in questions(run).items()}
    return [*sorted(found), *sorted(asked)]


def _hash(path: Path) -> str:
    try:
        return sha256(path.read_bytes()).hexdigest()
    except OSError:  # a gap, which is among the sweep's problems
        return ""


def questions(run: Run) -> dict[str, dict[str, tuple[str, ...]]]:
    """Benchmark -> question id -> the user's turns; without the benchmarks whose files are not on this machine."""
    nodes = run.record.settings.get("benchmark", {})
    found = {name: _turns(json.dumps(node, sort_keys=True)) for name, node in nodes.items()}
    return {name: turns for name, turns in found.items() if turns}


@cache
def _turns(node: str) -> dict[str, tuple[str, ...]]:
    settings = json.loads(node)
    if not isinstance(settings, dict) or "_target_" not in settings:
        return {}
    try:
        turns: dict[str, tuple[str, ...]] = build_component(settings).user_turns()
    except Exception:  # whatever it is that a benchmark of others' needs and lacks here: its ids are shown instead
        return {}
    return turns
