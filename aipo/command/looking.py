"""Looking at what a run made: rows of artifacts, two jobs side by side, a chat with a policy."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from aipo.artifacts import Artifact, StaleArtifactError, check_folder, read_manifest
from aipo.jobs import FILE as JOB
from aipo.jobs import JobRecord, Point, read_job, store_of
from aipo.terminal import console

DIRECT = ("pairs", "ranking", "reference", "train", "kl")
"""Stages that a job's record names; those behind them are found in their manifests."""
BEHIND_RANKING, BEHIND_SCORES = ("candidates", "prompts"), ("answers", "judgments")
DATA = ("*.parquet", "*.jsonl", "metrics.json", "kl.json")
"""Where rows lie in an artifact."""
JOB_FOLDER = "expected a job's folder (results/<sweep>/jobs/<job>)"


class LookError(ValueError):
    """There is nothing there to look at; the message says what was expected."""


def rows_of(folder: Path) -> Iterator[Mapping[str, Any]]:
    """Every row of an artifact's data files, as plain values. StoreError where they are not what its manifest says."""
    check_folder(folder)
    files = sorted(path for pattern in DATA for path in folder.glob(pattern))
    if not files:
        found = ", ".join(sorted(path.name for path in folder.glob("*"))) or "nothing"
        raise LookError(f"{folder}: expected an artifact with rows ({', '.join(DATA)}), found {found}")
    for path in files:
        if path.suffix == ".parquet":
            import pyarrow.parquet as pq

            for batch in pq.ParquetFile(path).iter_batches(64):
                yield from batch.to_pylist()
        elif path.suffix == ".jsonl":
            with path.open(encoding="utf-8") as file:
                yield from (json.loads(line) for line in file)
        else:
            content = json.loads(path.read_text(encoding="utf-8"))
            yield from content if isinstance(content, list) else [content]


def artifact_folder(place: Path, stage: str | None = None, number: int | None = None) -> Path:
    """The artifact that `place` means: itself, or of a job's folder what `stage` (default: its pairs) made in round
    `number`, from 1 (default: the last)."""
    if not place.is_dir():
        raise LookError(f"{place}: no such folder; {JOB_FOLDER}, or an artifact's (outputs/<stage>/<digits>)")
    if (place / "jobs").is_dir():
        raise LookError(f"{place} is a sweep; {JOB_FOLDER}")
    if not (place / JOB).exists():
        return place
    record = read_job(place)
    rounds = [point for point in record.points if point.pairs and number in (None, point.iteration + 1)]
    if not rounds:
        raise LookError(
            f"{place}: no round {'' if number is None else number} in this job; it has {len(record.points) - 1}"
        )
    point, wanted, store = rounds[-1], stage or "pairs", store_of(place, record)
    known = (*DIRECT, *BEHIND_RANKING, *BEHIND_SCORES, "scores")
    if wanted not in known or (digest := _digest(store, point, wanted)) is None:
        there = [name for name in known if name != wanted and _is_there(store, point, name)]
        raise LookError(
            f"{place}: nothing to see of stage {wanted!r} in round {point.iteration + 1}; "
            f"choose from {', '.join(there)}"
        )
    return store / wanted / digest


def _digest(store: Path, point: Point, stage: str) -> str | None:
    """What a stage made in a round; None where it made nothing."""
    scores = [score.fingerprint for score in point.scores]
    found: list[str | None]
    if stage in DIRECT:
        found = [getattr(point, stage)]
    elif stage == "scores":
        found = [*scores]
    elif stage in BEHIND_SCORES:
        found = [_parent(store, "scores", digest, stage) for digest in scores]
    else:
        found = [_parent(store, "ranking", point.ranking, "candidates")]
        if stage == "prompts":
            found = [_parent(store, "candidates", found[0], "prompts")]
    return next((one for one in found if one is not None), None)


def _is_there(store: Path, point: Point, stage: str) -> bool:
    try:
        return _digest(store, point, stage) is not None
    except StaleArtifactError:  # it cannot be reached either
        return False


def _parent(store: Path, stage: str, digest: str | None, name: str) -> str | None:
    """What an artifact was made from, by the name that it has in its manifest; None where there is none."""
    return None if digest is None else read_manifest(store, stage, digest)["parents"].get(name)


def show_rows(folder: Path, number: int, search: str | None) -> None:
    """Print the first `number` rows whose text holds `search`, token ids left out; a pair with its prompt."""
    shown = 0
    chats = _chats_behind(folder)
    for row in rows_of(folder):
        if (chat := chats.get(str(row.get("prompt_id")))) is not None:
            row = {"prompt": chat, **row}
        text = json.dumps(_without_ids(row), indent=1, ensure_ascii=False)
        if search and search.lower() not in text.lower():
            continue
        console.print(Text(text), soft_wrap=True)  # a line break of ours within a text would make it other than JSON
        shown += 1
        if shown == number:
            return
    if not shown:
        console.print(f"no row holds {search!r}" if search else "no rows", highlight=False)


def _chats_behind(folder: Path) -> dict[str, Any]:
    """Prompt id -> chat, of the candidates that the artifact was made from; empty where there are none on this disk."""
    path = folder / "manifest.json"
    parents = json.loads(path.read_text(encoding="utf-8")).get("parents", {}) if path.exists() else {}
    candidates = folder.resolve().parents[1] / "candidates" / str(parents.get("candidates"))
    if not candidates.is_dir():
        return {}
    return {row["prompt"]["prompt_id"]: row["prompt"]["chat"] for row in rows_of(candidates)}


def _without_ids(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_ids(item) for key, item in value.items() if not str(key).endswith("token_ids")}
    if isinstance(value, list):
        return [_without_ids(item) for item in value]
    return value


def compare(first: Path, second: Path) -> None:
    """Two jobs: the settings in which they differ, and their last scores beside each other."""
    left, right = read_job(first), read_job(second)
    settings = Table(box=None, pad_edge=False, title="settings that differ", title_justify="left")
    for name in ("setting", first.name, second.name):
        settings.add_column(name, overflow="fold")
    for key, one, other in differences(left.settings, right.settings):
        settings.add_row(key, Text(one), Text(other))
    console.print(settings if settings.row_count else "the same settings")
    scores = Table(box=None, pad_edge=False, title="\nlast round", title_justify="left")
    for name in ("benchmark", "judge", "metric"):
        scores.add_column(name, overflow="fold")
    for name in (first.name, second.name):
        scores.add_column(name, overflow="fold", justify="right")
    ours, theirs = _last_scores(first, left), _last_scores(second, right)
    for place in dict.fromkeys([*ours, *theirs]):
        scores.add_row(*place, *(_number(found.get(place)) for found in (ours, theirs)))
    console.print(scores)


def differences(left: Any, right: Any, path: str = "") -> Iterator[tuple[str, str, str]]:
    """(setting, left, right) wherever two nested settings differ."""
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        for key in sorted({*left, *right}):
            yield from differences(left.get(key), right.get(key), f"{path}.{key}" if path else key)
    elif left != right:
        yield path, json.dumps(left), json.dumps(right)


def _last_scores(job: Path, record: JobRecord) -> dict[tuple[str, str, str], float]:
    found: dict[tuple[str, str, str], float] = {}
    store = store_of(job, record)
    shown = {item.name: (item.primary_metric, item.length_metric) for item in record.benchmarks}
    for score in record.points[-1].scores if record.points else ():
        read_manifest(store, "scores", score.fingerprint)
        folder = store / "scores" / score.fingerprint
        primary, length = shown[score.benchmark]
        wanted = (primary,) if score.diagnostic else (primary, length)  # the answers have one length, whoever judges
        for metric in json.loads((folder / "metrics.json").read_text(encoding="utf-8")):
            if metric["name"] in wanted:
                found[score.benchmark, score.judge, metric["name"]] = metric["value"]
    return found


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def policy_folder(place: Path, number: int | None = None) -> Path:
    """The model folder that `place` means: itself, a train artifact's, or that of a job's round (from 1; None: the
    last).

    Of an artifact every byte of the model is compared with the manifest. Raises LookError and StoreError.
    """
    if (place / "config.json").exists():
        if (place.parent / "manifest.json").exists():
            stage, digest = place.resolve().parts[-3:-1]
            Artifact(stage, digest, place.parent).verify(place.name)
        return place
    if (place / "model" / "config.json").exists():
        return policy_folder(place / "model")
    if not (place / JOB).exists():
        lacks = "no policy in it" if place.is_dir() else "no such folder"
        raise LookError(f"{place}: {lacks}; {JOB_FOLDER}, a train artifact's, or a model's")
    record = read_job(place)
    trained = [point for point in record.points if point.train and number in (None, point.iteration + 1)]
    if not trained:
        raise LookError(f"{place}: no trained round {'' if number is None else number} in this job")
    artifact = Artifact("train", str(trained[-1].train), store_of(place, record) / "train" / str(trained[-1].train))
    artifact.verify("model")
    return artifact.path / "model"


def chat(folder: Path, *, temperature: float, max_new_tokens: int, seed: int) -> None:
    """Talk with a policy until an empty line or the end of input."""
    from aipo.models import PolicyRef
    from aipo.records import Decoding, Message
    from aipo.samplers import HFSampler

    sampler = HFSampler(policy=PolicyRef(str(folder)))
    decoding = Decoding(temperature, 1.0, 0, max_new_tokens)
    turns: tuple[Message, ...] = ()
    console.print("an empty line ends the chat", style="dim")
    while True:
        try:
            said = input("you: ").strip()
        except EOFError:
            return
        if not said:
            return
        turns = (*turns, Message("user", said))
        ((completion,),) = sampler.sample([turns], decoding, n=1, seed=seed + len(turns))
        console.print(Text(f"policy: {completion.text}"))
        turns = (*turns, Message("assistant", completion.text))
