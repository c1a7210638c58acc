"""Every change of a finished artifact's files is found before a later stage or a table uses them."""

from __future__ import annotations

import json
import os
import random
import shutil
from pathlib import Path

import pytest
from fault_harness import job

from aipo.artifacts import StageReport, StaleArtifactError, Store, files, read_manifest
from aipo.artifacts.claims import LOCKS

KINDS = ("flip", "digit", "swap", "zero", "cut", "grow", "delete", "empty", "add")
"""The first four leave the size as it was."""


def corrupt(rng: random.Random, kind: str, path: Path, others: list[Path]) -> Path:
    """Change one file, and put its modification time back. Returns the file that is no longer what it was."""
    before = path.stat()
    content = bytearray(path.read_bytes())
    if kind == "flip":
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(7)
    elif kind == "digit":
        digits = [place for place, byte in enumerate(content) if byte in b"0123456789"]
        place = rng.choice(digits or range(len(content)))
        content[place] = rng.choice([byte for byte in b"123456789" if byte != content[place]])
    elif kind == "swap":
        other = rng.choice(others).read_bytes()
        content = bytearray((other * (1 + len(content) // len(other)))[: len(content)])
    elif kind == "zero":
        content[len(content) // 2 :] = bytes(len(content) - len(content) // 2)
    elif kind == "cut":
        del content[rng.randrange(len(content)) :]
    elif kind == "grow":
        content += b"0"
    elif kind == "empty":
        content.clear()
    if kind == "delete":
        path.unlink()
        return path
    if kind == "add":
        path = path.with_name("added.safetensors")
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    return path


def use(root: Path) -> None:
    """The same job, then a stage that uses all its artifacts."""
    job(root)
    store = Store(root)
    job_again = {path.name: path for path in sorted(root.glob("[a-z]*/*"))}
    for digest, path in job_again.items():
        store.run(
            path.parent.name + "_reader",
            version=1,
            config={},
            parents={"it": digest},
            build=lambda folder: StageReport(),
        )


def trial(rng: random.Random, kind: str, root: Path) -> str:
    """One corruption; "" when a stage and a table both refuse the artifact and name the file and a remedy."""
    paths = sorted(path for path in root.rglob("*") if path.is_file() and LOCKS not in path.parts)
    path = rng.choice(paths)
    folder = next(parent for parent in path.parents if parent.parent.parent == root)
    changed = corrupt(rng, kind, path, [other for other in paths if other.read_bytes() != path.read_bytes()])
    for reader in (lambda: use(root), lambda: read_manifest(root, folder.parent.name, folder.name)):
        try:
            reader()
            return f"{kind} of {path} was not found"
        except StaleArtifactError as error:
            if str(changed) not in str(error) or "run the same command again" not in str(error):
                return f"{kind} of {path}: the error does not name the file and the remedy: {error}"
    shutil.move(folder, folder.with_name(f"{folder.name}.partial"))
    try:
        use(root)
    except Exception as error:
        return f"{kind} of {path}: the remedy failed: {error}"
    return ""


def trials(number: int, root: Path, seed: int) -> list[str]:
    """What was not found, or not mended by its remedy."""
    rng = random.Random(seed)
    job(root / "made")
    missed = []
    for index in range(number):
        shutil.rmtree(root / "copy", ignore_errors=True)
        shutil.copytree(root / "made", root / "copy")
        missed.append(trial(rng, KINDS[index % len(KINDS)], root / "copy"))
    return [what for what in missed if what]


@pytest.mark.parametrize("large", [False, True])
def test_every_corruption_is_found_quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, large: bool) -> None:
    """`large`: all weights take the path of large ones, which are hashed only if they look changed."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    if large:
        monkeypatch.setattr(files, "ALWAYS_HASHED_BYTES", 1)
    assert trials(len(KINDS), tmp_path / "store", seed=0) == []


@pytest.mark.slow
@pytest.mark.parametrize("large", [False, True])
def test_every_corruption_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, large: bool, capsys) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    if large:
        monkeypatch.setattr(files, "ALWAYS_HASHED_BYTES", 1)
    missed = trials(252, tmp_path / "store", seed=1)
    with capsys.disabled():
        print(f"\ncorruptions (large files: {large}): 252, not found or not mended: {len(missed)}")
    assert missed == []


def test_a_bit_that_flips_without_a_trace_is_found_by_verify_and_before_weights_are_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that returns other bytes leaves inode, size and times alone; the note of the hash still stands."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(files, "ALWAYS_HASHED_BYTES", 1)
    store = Store(tmp_path / "store")

    def build(folder: Path) -> StageReport:
        (folder / "model").mkdir()
        (folder / "model" / "model.safetensors").write_text("weights")
        return StageReport()

    policy = store.run("train", version=1, config={}, parents={}, build=build)
    real = files._remembered
    monkeypatch.setattr(files, "_remembered", lambda path, status: real(path, status) or recorded)
    recorded = json.loads((policy.path / "manifest.json").read_text())["files"]["model/model.safetensors"]["sha256"]
    (policy.path / "model" / "model.safetensors").write_text("weighty")
    policy.check()
    with pytest.raises(StaleArtifactError, match=r"model\.safetensors"):
        policy.verify()
    arguments = {"version": 1, "config": {}, "parents": {"policy": policy.fingerprint}, "build": build}
    store.run("pairs", **arguments)  # reads the tokenizer alone
    for verify in ("policy", "policy/model"):
        with pytest.raises(StaleArtifactError, match=r"model\.safetensors"):
            store.run("answers", verify=(verify,), **arguments)


def test_a_bit_that_flips_without_a_trace_in_data_is_found_at_every_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "ALWAYS_HASHED_BYTES", 1)
    monkeypatch.setattr(files, "_remembered", lambda path, status: pytest.fail(f"{path.name}: a note was asked"))
    store = Store(tmp_path / "store")

    def build(folder: Path) -> StageReport:
        (folder / "answers.parquet").write_text("rows")
        return StageReport()

    arguments = {"version": 1, "config": {}, "build": build}
    answers = store.run("answers", parents={}, **arguments)
    (answers.path / "answers.parquet").write_text("rowz")
    with pytest.raises(StaleArtifactError, match=r"answers\.parquet"):
        answers.check()
    with pytest.raises(StaleArtifactError, match=r"answers\.parquet"):
        store.run("judgments", parents={"answers": answers.fingerprint}, **arguments)
