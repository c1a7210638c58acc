"""What tells one model folder from another: every file that says what it computes, and no other."""

from __future__ import annotations

from pathlib import Path

import pytest

from aipo.models.policy import PolicyRef

FAST = "fba39a127a093208db44dc5fc6c697cb7793f17277fbae185a60d6361b7861fc"
"""Of `folder`, as it was computed before code and word lists were looked at: artifacts of before are met again."""


@pytest.fixture(autouse=True)
def template(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text("x", encoding="utf-8")


def identity(folder: Path, *, trust_remote_code: bool = False) -> str:
    return PolicyRef(str(folder), trust_remote_code=trust_remote_code).identity()["sha256"]


def test_a_folder_with_a_fast_tokenizer_and_no_code_is_known_as_before(folder: Path) -> None:
    assert identity(folder) == FAST == identity(folder, trust_remote_code=True)
    for name in ("merges.txt", "vocab.txt", "a.tiktoken", "modeling_x.py", "README.md"):
        (folder / name).write_text("x", encoding="utf-8")
    assert identity(folder) == FAST, "nothing reads these"


def test_code_counts_where_it_is_run(folder: Path) -> None:
    found = set()
    for text in ("x = 1", "x = 2"):
        (folder / "modeling_x.py").write_text(text, encoding="utf-8")
        found.add(identity(folder, trust_remote_code=True))
    assert len(found | {FAST}) == 3


@pytest.mark.parametrize("name", ["merges.txt", "vocab.txt", "qwen.tiktoken"])
def test_word_lists_count_where_they_are_the_tokenizer(folder: Path, name: str) -> None:
    (folder / "tokenizer.json").unlink()
    found = {identity(folder)}
    for text in ("a b", "a c"):
        (folder / name).write_text(text, encoding="utf-8")
        found.add(identity(folder))
    assert len(found) == 3
