"""What a submission keeps, so that no later edit reaches a job that waits or is queued again.

    results/<sweep>/submissions/<number>/
        code/             this package, conf, and modules of the user's own, as they were
        jobs/<job>.json   each composed config, with what it was asked for
        changes.diff      what the checkout had beyond its commit; absent where there was nothing
        submission.json   the commit, versions, who submitted, from where
        slurm/            what submitit writes: scripts, pickles, a log for each job

It is made under another name and renamed when it is whole. Slurm's jobs import the code from there.
"""

from __future__ import annotations

import getpass
import json
import os
import shutil
import site
import sys
import sysconfig
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aipo
from aipo.artifacts.provenance import CODE_FILE, changes, commit, packages
from aipo.records import from_row, to_row
from aipo.remote import redact

SUBMISSIONS = "submissions"
CODE, JOBS, CHANGES, ABOUT = "code", "jobs", "changes.diff", "submission.json"


@dataclass(frozen=True)
class Asked:
    """One job as it was submitted."""

    folder: str
    """Its own folder, as a path; relative to where it was submitted."""
    config: Mapping[str, Any]
    """Composed and resolved."""
    overrides: tuple[str, ...]
    choices: Mapping[str, str]
    logging: Mapping[str, Any] | None
    """For logging.config.dictConfig; None where Hydra was told to leave logging alone."""


def take(sweep: Path, jobs: Sequence[Asked], launcher: Mapping[str, Any]) -> Path:
    """A new folder below the sweep's `submissions`, complete when this returns."""
    place = sweep / SUBMISSIONS
    place.mkdir(parents=True, exist_ok=True)
    staged = place / f".{os.getpid()}.partial"
    shutil.rmtree(staged, ignore_errors=True)
    (staged / JOBS).mkdir(parents=True)
    _copy_code(staged / CODE)
    for job in jobs:
        text = json.dumps(to_row(job), ensure_ascii=False)
        (staged / JOBS / f"{Path(job.folder).name}.json").write_text(text, encoding="utf-8")
    if diff := changes():
        (staged / CHANGES).write_text(redact(diff), encoding="utf-8")
    about = {
        "submitted": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "commit": commit(),
        "user": getpass.getuser(),
        "folder": os.getcwd(),
        "command": [redact(item) for item in sys.argv],
        "packages": packages(),
        "launcher": dict(launcher),
        "jobs": len(jobs),
    }
    (staged / ABOUT).write_text(json.dumps(about, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return _put_into_place(staged, place)


def read_asked(file: Path) -> Asked:
    """A job's file in `jobs/`."""
    return from_row(Asked, json.loads(file.read_text(encoding="utf-8")))


def last_launcher(sweep: Path) -> dict[str, Any] | None:
    """How the sweep's last submission was launched; None where it was never submitted to a cluster."""
    found = sorted(path for path in (sweep / SUBMISSIONS).glob("*/") if path.name.isdecimal())
    return read_launcher(found[-1]) if found else None


def read_launcher(kept: Path) -> dict[str, Any]:
    """How a submission was launched."""
    launcher: dict[str, Any] = json.loads((kept / ABOUT).read_text(encoding="utf-8"))["launcher"]
    return launcher


def _put_into_place(staged: Path, place: Path) -> Path:
    number = 1 + max((int(path.name) for path in place.iterdir() if path.name.isdecimal()), default=0)
    while True:
        final = place / f"{number:03d}"
        try:
            os.rename(staged, final)
            return final
        except OSError:
            if not final.exists():
                raise
            number += 1  # another submission took it in this moment


def _copy_code(target: Path) -> None:
    package = Path(aipo.__file__).resolve().parent
    target.mkdir()
    for source in dict.fromkeys([package, package.parent / "analysis", package.parent / "conf", *_own_modules()]):
        if source.is_dir():
            shutil.copytree(source, target / source.name, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
        elif source.exists():
            shutil.copy2(source, target / source.name)
    told = {"commit": commit(), "changes": redact(changes()), "copied_from": str(package.parent)}
    (target / CODE_FILE).write_text(json.dumps(told) + "\n", encoding="utf-8")


def _own_modules() -> Iterator[Path]:
    """Packages and modules that are loaded and neither installed nor Python's own: a user's components."""
    installed = {Path(path).resolve() for path in (*site.getsitepackages(), site.getusersitepackages())}
    installed |= {Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if "." in name or name in ("__main__", "aipo", "analysis") or not file:
            continue
        path = Path(file).resolve()
        if path.suffix == ".py" and not any(place in path.parents for place in installed):
            yield path.parent if path.name == "__init__.py" else path
