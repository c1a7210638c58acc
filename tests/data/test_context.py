"""Prompts that fill a policy's context are dropped before sampling, counted and named."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import pytest
from chat_tokenizers import qwen_25
from hypothesis import given
from hypothesis import strategies as st

from aipo.data.context import fit_context, leaves_room
from aipo.models.tokens import plain_token_ids, prompt_token_ids
from aipo.records import Message, Prompt

TOKENIZER = qwen_25()
TOKENIZER.model_max_length = 50


@dataclass(frozen=True)
class Policy:
    """A policy as far as its context is concerned."""

    limit: int | None
    path: str = "some/model"

    def context_tokens(self) -> int | None:
        return self.limit

    def load_tokenizer(self):
        return TOKENIZER


def prompt(prompt_id: str, words: int) -> Prompt:
    return Prompt(prompt_id, (Message("user", " ".join(["bird"] * words)),), "pool")


def tokens(one: Prompt) -> int:
    return len(prompt_token_ids(TOKENIZER, one.chat))


def test_the_prompts_that_fill_the_context_are_counted_and_the_longest_is_named(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    rows = [prompt("a", 1), prompt("b", 300), prompt("c", 20), prompt("d", 1)]
    limit = tokens(rows[2])
    with caplog.at_level(logging.WARNING, logger="aipo"):
        kept, dropped = fit_context(rows, Policy(limit))
    assert [row.prompt_id for row in kept] == ["a", "d"] and dropped == {"prompt_too_long": 2}
    assert f"2 of 4 prompts leave no room for an answer in the context of {limit} tokens" in caplog.text
    assert f"model.path=some/model; the longest, b, has {tokens(rows[1])} tokens" in caplog.text
    assert "indexing errors" not in capfd.readouterr().err + caplog.text


def test_a_text_to_continue_needs_room_for_one_token() -> None:
    text = "1. bird bird"
    length = len(plain_token_ids(TOKENIZER, text))
    assert [leaves_room(Policy(limit))(text) for limit in (length, length + 1, None)] == [False, True, True]


def test_a_source_of_nothing_else_ends_the_run_with_what_is_wrong() -> None:
    with pytest.raises(
        ValueError, match=r"1 of 1 prompts .* context of 16 tokens of model\.path=some/model; .* b, has"
    ):
        fit_context([prompt("b", 300)], Policy(16))


@given(st.lists(st.integers(1, 60), max_size=12), st.none() | st.integers(60, 200))
def test_whatever_fits_stays_in_its_order_and_nothing_is_counted(words: list[int], limit: int | None) -> None:
    rows = [prompt(str(number), count) for number, count in enumerate(words)]
    limit = limit and max([limit, *(tokens(row) + 1 for row in rows)])
    assert fit_context(rows, Policy(limit)) == (rows, {})
