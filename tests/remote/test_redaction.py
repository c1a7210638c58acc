"""Keys in every form in which they turn up."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aipo.judges import AzureEndpoint, OpenAIEndpoint
from aipo.remote.redaction import keep_secret, redact, redacted

KEY = 'q7Zp-planted_1/+é"x'


@pytest.fixture(autouse=True)
def planted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", KEY)
    monkeypatch.setenv("HF_TOKEN", "hf_" + "a" * 30)
    monkeypatch.setenv("SHORT_KEY", "none")


@pytest.mark.parametrize(
    "text",
    [
        f"Incorrect API key provided: {KEY}.",
        repr(KEY),
        json.dumps({"error": KEY})[10:-1],
        f"http://user:{KEY}@host/v1",
        "http://someone:planted_1@host/v1",
        "Authorization: Bearer planted_1abc",
        "{'authorization': 'Bearer planted_1abc'}",
        '"api-key": "planted_1abc"',
        "https://host/v1?key=planted_1abc&x=1",
        "token hf_" + "a" * 30,
        "sk-proj-planted_1" + "b" * 20,
    ],
)
def test_a_key_is_hidden(text: str) -> None:
    shown = redact(text)
    assert "planted_1" not in shown and "a" * 30 not in shown and "<redacted>" in shown
    assert redact(shown) == shown


def test_other_words_stay() -> None:
    text = "none of 3 prompts: see https://host/v1?page=2, KeyError 'api', bearer of news, token limit 5"
    assert redact(text) == text
    assert redacted({"a": [1, text, (KEY,)], KEY: None}) == {"a": [1, text, ("<redacted>",)], "<redacted>": None}


def test_a_variable_with_any_name_can_be_declared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_JUDGE", "planted_2")
    assert redact("planted_2") == "planted_2"
    keep_secret("MY_JUDGE")
    assert redact("planted_2") == "<redacted>"


@pytest.mark.parametrize("url", ["http://me:pw12@host/v1", "http://token@host/v1", "https://host/v1?api_key=abcdef"])
def test_a_key_in_an_address_is_refused_without_being_shown(url: str) -> None:
    for make in (OpenAIEndpoint, lambda url: AzureEndpoint(url, "2024-10-21")):
        with pytest.raises(ValueError, match="without user, password or key") as caught:
            make(url)
        assert not any(secret in str(caught.value) for secret in ("pw12", "token@", "abcdef"))


@given(st.text(max_size=300))
def test_any_text_can_be_redacted(text: str) -> None:
    redact(text)


@pytest.mark.parametrize("unit", ["a", "http://", "authorization: ", "bearer ", "sk-", "?key=", "://", "a-"])
def test_no_text_takes_long(unit: str) -> None:
    started = time.perf_counter()
    redact(unit * (200_000 // len(unit)))
    assert time.perf_counter() - started < 1
