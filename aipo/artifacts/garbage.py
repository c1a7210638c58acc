"""What may be removed from a store, and why: a plan first, carried out only when asked.

Kept are all artifacts that a sweep under results/ names, and all that those were made from. Kept too, unless named, is
what cost most: weights, paid replies, what was set aside, and whatever an unfinished job may go on from.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from aipo.artifacts.claims import Claim, LockKind
from aipo.artifacts.files import StaleArtifactError, prune, remove, weights_of
from aipo.artifacts.inventory import Inventory, size_bytes
from aipo.artifacts.manifest import read_manifest
from aipo.jobs import read_job

ALSO = ("unfinished", "weights", "replies", "aside")
"""What is only removed when it is named."""
Keep = Literal["all", "last", "best"]
_CHANGING_HANDS_SECONDS = 600.0


@dataclass(frozen=True)
class Removal:
    """A file or folder that can go; of `weights_only`, the model's weights alone, so that nothing has to run again."""

    path: Path
    size_bytes: int
    why: str
    weights_only: bool = False


@dataclass(frozen=True)
class Plan:
    """What would be removed, and what is not although no sweep reaches it."""

    removals: tuple[Removal, ...]
    kept: tuple[tuple[Path, str], ...]
    """With the reason, which names the option that would remove it."""

    @property
    def size_bytes(self) -> int:
        """All removals together."""
        return sum(removal.size_bytes for removal in self.removals)


@dataclass(frozen=True)
class Sweeps:
    """What the sweeps under results folders need of the store."""

    named: frozenset[str]
    """Every fingerprint in a `run.json` or `sources.json`."""
    last_weights: frozenset[str]
    """The last round's policy of every job."""
    unfinished: tuple[tuple[Path, str | None], ...]
    """Jobs that are not done, each with the last policy it reached."""
    jobs: tuple[Path, ...]
    """Folders of all jobs."""

    @classmethod
    def of(cls, *results: Path) -> Sweeps:
        """Read every `run.json` and `sources.json` below `results`, in linked folders too.

        ValueError names a file, a folder or a link that cannot be read: what lies there may be needed.
        """
        named: set[str] = set()
        last: set[str] = set()
        unfinished, jobs = [], []
        for path in sorted(_records(results)):
            try:
                text = path.read_text(encoding="utf-8")
            except (OSError, ValueError) as error:
                raise _unclear(path, error) from error
            named.update(re.findall(r'"([0-9a-f]{16})"', text))
            if path.name != "run.json":
                continue
            try:
                content = json.loads(text)
                points = sorted(content["points"], key=lambda point: point["iteration"])
                policies = [point["policy"] for point in points]
                done = content["status"] == "done"
            except (ValueError, KeyError, TypeError) as error:
                raise _unclear(path, error) from error
            last.update(policies[-1:])
            if not done:
                unfinished.append((path, policies[-1] if policies else None))
            jobs.append(path.parent)
        return cls(frozenset(named), frozenset(last), tuple(unfinished), tuple(jobs))


def _records(results: Collection[Path]) -> Iterator[Path]:
    """Every `run.json` and `sources.json` below `results`, each folder once, however many links lead to it."""
    seen: set[tuple[int, int]] = set()
    jobs: set[Path] = set()

    def refuse(error: OSError) -> None:
        raise _unclear(error.filename, error.strerror) from error

    for folder in results:
        for base, folders, files in os.walk(folder, followlinks=True, onerror=refuse):
            status, here = os.stat(base), Path(base)
            if (status.st_dev, status.st_ino) in seen:
                folders.clear()
                continue
            seen.add((status.st_dev, status.st_ino))
            folders.sort()
            if "run.json" in files:
                jobs.add(here)
            if not jobs & {here, *here.parents}:  # a job's own folder holds no sweep
                for link in (here / name for name in files):
                    _require_an_end(link)
            yield from (here / name for name in files if name in ("run.json", "sources.json"))


def _require_an_end(link: Path) -> None:
    """ValueError for a link that leads nowhere, as to a disk that is not there now: a sweep may lie on it."""
    try:
        link.stat()
    except OSError as error:
        raise _unclear(link, f"{error.strerror}; it leads to {os.readlink(link)}") from error


def _unclear(path: str | Path, why: object) -> ValueError:
    return ValueError(f"{path} cannot be read ({why}); nothing is removed while it is unclear")


def plan(store: Inventory, sweeps: Sweeps, also: Collection[str] = (), keep_weights: Keep = "all") -> Plan:
    """What can go. Reads the store, changes nothing.

    `also`: the entries of ALSO that may go too. `keep_weights` "last": of every job only the last round's weights stay;
    "best": those of the round that scored highest, and of a job that is not done the last ones too. The artifacts of
    the others remain, without weights, which are made again if a stage should ever need them.
    """
    keep = sweeps.last_weights if keep_weights == "last" else frozenset()
    if keep_weights == "best":
        keep = frozenset(best_policy(store, folder) for folder in sweeps.jobs)
        keep |= frozenset(policy for _, policy in sweeps.unfinished if policy)
    removals: list[Removal] = []
    kept: list[tuple[Path, str]] = []
    reached = store.ancestors(sweeps.named)
    wanted = reached | (set() if "unfinished" in also else _may_be_needed(store, sweeps, reached))
    for digest, entry in store.entries.items():
        path = entry.artifact.path
        if digest in wanted:
            if digest not in reached:
                kept.append((path, f"{_jobs(sweeps)} may go on from it (--also unfinished)"))
            weights = sum(size_bytes(file) for file in weights_of(path))
            if keep_weights != "all" and digest in reached - keep and weights and path.parent.name != "base_model":
                removals.append(Removal(path, weights, f"weights of a round that is not the {keep_weights}", True))
        elif entry.has_weights and "weights" not in also:
            kept.append((path, "no sweep reaches it; it holds weights (--also weights)"))
        elif entry.has_replies and "replies" not in also:
            kept.append((path, "no sweep reaches it; it holds judge replies (--also replies)"))
        else:
            removals.append(Removal(path, entry.size_bytes, "no sweep reaches it"))
    for path in store.partials:
        if sweeps.unfinished and "unfinished" not in also:
            kept.append((path, f"unfinished, and {_jobs(sweeps)} may go on from it (--also unfinished)"))
        elif any(path.glob("replies*.jsonl")) and "replies" not in also:
            kept.append((path, "unfinished, but it holds judge replies (--also replies)"))
        else:
            removals.append(Removal(path, size_bytes(path), "an unfinished build"))
    removals += [Removal(path, size_bytes(path), "an unfinished download") for path in store.incoming]
    for places, name in ((store.aside, "aside"), (store.replies, "replies")):
        for path in places:
            if name in also:
                removals.append(Removal(path, size_bytes(path), f"named by --also {name}"))
    for path in store.locks:
        if (
            path.suffix == ".lock" or time.time() - path.lstat().st_mtime > _CHANGING_HANDS_SECONDS
        ):  # else a lease that is changing hands
            removals.append(Removal(path, size_bytes(path), "a lock, if nobody holds it"))
    return Plan(tuple(removals), tuple(kept))


def best_policy(store: Inventory, job: Path) -> str:
    """The policy of a job that scores highest on the primary metric of its first benchmark, by the job's main judge.

    The last one where no benchmark was asked. ValueError names a job or a score that cannot be read.
    """
    record = read_job(job)
    scored: list[tuple[float, int, str]] = []
    for point in record.points:
        for score in point.scores if point.iteration >= 0 else ():
            benchmark = record.benchmarks[0]
            if score.benchmark != benchmark.name or score.diagnostic:
                continue
            try:
                read_manifest(store.root, "scores", score.fingerprint)
                text = (store.root / "scores" / score.fingerprint / "metrics.json").read_text(encoding="utf-8")
            except (StaleArtifactError, OSError) as error:
                raise ValueError(f"{job}: which round is the best is unknown: {error}") from error
            found = [metric["value"] for metric in json.loads(text) if metric["name"] == benchmark.primary_metric]
            scored += [(value, point.iteration, point.policy) for value in found]
    return max(scored)[2] if scored else record.points[-1].policy if record.points else ""


def carry_out(store: Inventory, planned: Plan, lock: LockKind) -> list[Removal]:
    """Remove what was planned, but nothing that a process works on now. Returns what was removed."""
    done = []
    for removal in planned.removals:
        path = removal.path
        lock_of_nobody = path in store.locks and (path.suffix != ".lock" or (lock == "lease" and _left_empty(path)))
        if path in store.aside or path in store.replies or lock_of_nobody:
            remove(path)
            done.append(removal)
            continue
        stage, digest = path.parent.name, path.name.partition(".")[0]
        if path in store.locks or path in store.incoming:
            stage, _, digest = path.name.partition(".")[0].rpartition("-")
        claim = Claim(store.root, stage, digest, lock)
        if not claim.acquire(wait=False):
            continue
        try:
            if removal.weights_only:
                prune(path)
            else:
                remove(path)
            if lock == "flock":
                remove(claim.path)  # whoever waits for it takes a new one
            done.append(removal)
        finally:
            claim.release()
    return done


def _left_empty(path: Path) -> bool:
    """A lease whose owner died before it wrote its name."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return False
    return status.st_size == 0 and time.time() - status.st_mtime > _CHANGING_HANDS_SECONDS


def _may_be_needed(store: Inventory, sweeps: Sweeps, reached: set[str]) -> set[str]:
    """What unfinished jobs made beyond their last point: all that descends from the policy they had there."""
    needed: set[str] = set()
    for _, policy in sweeps.unfinished:
        needed |= set(store.entries) if policy is None else store.descendants({policy})
    return store.ancestors(needed - reached)


def _jobs(sweeps: Sweeps) -> str:
    first = sweeps.unfinished[0][0].parent
    return f"the unfinished job {first}" + (f" or another of {len(sweeps.unfinished)}" if sweeps.unfinished[1:] else "")
