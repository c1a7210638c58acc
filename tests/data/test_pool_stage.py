"""The pool stage: what it refuses of any source, one of the user's own too."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import pytest
from composing import composed

from aipo.artifacts import Artifact
from aipo.data.source import Source
from aipo.pipeline.check import check
from aipo.pipeline.run import build_run
from aipo.pipeline.stages import Stages
from aipo.records import Example, Message, Prompt, read_parquet


@dataclass(frozen=True)
class Given:
    """A source of two responses for each of the prompt ids."""

    ids: tuple[str, ...]
    is_world: ClassVar[bool] = False
    brings_responses: ClassVar[bool] = True
    brings_ratings: ClassVar[bool] = True

    def identity(self) -> dict[str, str]:
        return {"ids": ",".join(self.ids)}

    def pool_size(self) -> int:
        return len(self.ids)

    def load(self) -> tuple[list[Example], dict[str, int]]:
        chats = [(Message("user", f"Name bird {number}."),) for number in range(len(self.ids))]
        prompts = [Prompt(name, chat, "pool") for name, chat in zip(self.ids, chats, strict=True)]
        return [Example(prompt, ("good", "bad"), (2.0, 1.0)) for prompt in prompts], {"repeated": 3}


def pool(source: Source, root: Path) -> Artifact:
    run = build_run(check(composed(f"store.root={root}", "iteration.prompts=2")))
    return Stages(replace(run, recipe=replace(run.recipe, source=source))).pool()


def test_two_prompts_with_one_id_are_refused(tmp_path: Path) -> None:
    """The first got the responses of the last, without a word."""
    expected = r"a prompt_id of its own for every prompt, got 'b' for prompts 2 and 4 of the pool; give one another"
    with pytest.raises(ValueError, match=expected):
        pool(Given(("a", "b", "c", "b", "a")), tmp_path)


def test_ids_of_their_own_are_kept(tmp_path: Path) -> None:
    artifact = pool(Given(("a", "b", "c")), tmp_path)
    assert [row.prompt.prompt_id for row in read_parquet(artifact.path / "pool.parquet", Example)] == ["a", "b", "c"]


def test_a_source_without_a_prompt_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"the source gave no prompt at all; dropped: \{'repeated': 3\}"):
        pool(Given(()), tmp_path)
