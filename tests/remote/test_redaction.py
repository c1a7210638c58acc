"""Keys in every form in which they turn up."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aipo.artifacts import Store
from aipo.judges import AzureEndpoint, OpenAIEndpoint
from aipo.remote.redaction import hide_values, hide_values_in_bytes, keep_secret, redact, redacted

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


@pytest.mark.parametrize("name", ["REVIEW_PASSWORD", "SOME_API_KEY", "keep:MY_DIGITS"])
def test_a_secret_may_be_made_of_digits(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    variable = name.removeprefix("keep:")
    if name != variable:
        keep_secret(variable)
    monkeypatch.setenv(variable, "1234567890123456")
    for hide in (redact, hide_values):
        assert hide("code 1234567890123456.") == "code <redacted>."
    assert hide_values_in_bytes(b"code 1234567890123456.") == b"code <redacted>."


def test_a_count_is_no_secret_unless_it_is_declared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAX_TOKENS", "2000000")
    monkeypatch.setenv("DOOR_PASSWORD", "20000000")
    monkeypatch.setenv("MY_PIN", "123456")
    assert redact("2000000 tokens, 20000000, 123456") == "2000000 tokens, <redacted>, 123456"
    keep_secret("MY_PIN")
    assert redact("2000000 tokens, 123456") == "2000000 tokens, <redacted>"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Authorization: ApiKey abcdef0123456789xyz", "Authorization: <redacted>"),
        ("authorization=AWS4-HMAC-SHA256 Credential=A/b, Signature=c\nHost: h", "authorization=<redacted>\nHost: h"),
        ('Authorization: Digest username="u", response="6629"\n', "Authorization: <redacted>\n"),
        ('Authorization: Digest username="u",\r\n  response="6629"\r\nA: b', "Authorization: <redacted>\r\nA: b"),
        ("{'Authorization': 'ApiKey abc def', 'a': 1}", "{'Authorization': '<redacted>', 'a': 1}"),
        ("{'Authorization': None, 'a': 1}", "{'Authorization': <redacted>, 'a': 1}"),
        (r'{"authorization": "Digest response=\"66\"", "a": 1}', '{"authorization": "<redacted>", "a": 1}'),
        (r'"{\"authorization\": \"ApiKey a b\", \"a\": 1}"', r'"{\"authorization\": \"<redacted>\", \"a\": 1}"'),
        ("curl -H 'Authorization: ApiKey abc' http://h", "curl -H 'Authorization: <redacted>' http://h"),
        ("Authorization: Bearer abcdef (attempt 2)", "Authorization: Bearer <redacted> (attempt 2)"),
        ("x-api-key: abcdef, try again", "x-api-key: <redacted>, try again"),
        ("{b'api-key': b'ab cd', b'a': 1}", "{b'api-key': b'<redacted>', b'a': 1}"),
    ],
)
def test_all_of_a_headers_value_is_hidden(text: str, expected: str) -> None:
    assert redact(text) == expected
    assert redact(expected) == expected


ENDINGS = ("key", "token", "secret", "password", "passwd", "sig", "signature", "credential")


@given(
    st.sampled_from(ENDINGS),
    st.sampled_from(["", "subscription-", "client_", "X-Amz-", "auth_"]),
    st.sampled_from([str.lower, str.upper, str.title]),
    st.text("abcdef0123456789+/.-_%", min_size=1, max_size=900),
)
def test_a_query_that_is_named_like_a_key_is_refused_and_hidden(
    ending: str, before: str, case: Callable[[str], str], value: str
) -> None:
    name = case(before + ending)
    url = f"https://host/v1?page=2&{name}={value}&x=1"
    assert redact(url) == f"https://host/v1?page=2&{name}=<redacted>&x=1"
    with pytest.raises(ValueError, match="without user, password or key"):
        OpenAIEndpoint(url)


def test_other_queries_stay() -> None:
    url = "https://host/v1?keyboard=qwerty&api-version=2024-10-21&tokens=5#signatures=3"
    assert redact(url) == url and OpenAIEndpoint(url).identity() == url


@pytest.mark.parametrize("url", ["http://me:pw12@host/v1", "http://token@host/v1", "https://host/v1?api_key=abcdef"])
def test_a_key_in_an_address_is_refused_without_being_shown(url: str) -> None:
    for make in (OpenAIEndpoint, lambda url: AzureEndpoint(url, "2024-10-21")):
        with pytest.raises(ValueError, match="without user, password or key") as caught:
            make(url)
        assert not any(secret in str(caught.value) for secret in ("pw12", "token@", "abcdef"))


@pytest.mark.parametrize("user", ["user:pa'ssword99", "user:p@ssw0rd", 'us"er', "a:b<c>d", "a:p@'w"])
def test_all_of_a_user_is_hidden_and_refused(user: str) -> None:
    assert redact(f"GET http://{user}@host:80/v1: 404") == "GET http://<redacted>@host:80/v1: 404"
    url = f"http://{user}@host/v1"
    for make in (OpenAIEndpoint, lambda url: Store("outputs", remote=url)):
        with pytest.raises(ValueError, match="got 'http://<redacted>@host/v1'"):
            make(url)


def test_a_user_with_a_blank_is_refused_without_being_shown() -> None:
    with pytest.raises(ValueError, match="got 'http://<redacted>@host/v1'"):
        OpenAIEndpoint("http://us er:pass word@host/v1")


def test_an_at_after_the_host_stays() -> None:
    text = (
        "see https://host/@scope/package@1.2, http://host/v1 or mail me@host.org, pip install x@git+https://host/x@v1"
    )
    assert redact(text) == text
    url = "https://host/@scope/v1@2"
    assert OpenAIEndpoint(url).identity() == url


@pytest.mark.parametrize("remote", ["memory://user:topsecretpw@b", "memory://b?token=topsecretpw"])
def test_a_key_in_a_stores_address_is_refused(remote: str) -> None:
    with pytest.raises(ValueError, match="store.remote: expected an address without user, password or key") as caught:
        Store("outputs", remote=remote)
    assert "topsecretpw" not in str(caught.value)


@given(st.text(max_size=300))
def test_any_text_can_be_redacted(text: str) -> None:
    redact(text)


@pytest.mark.parametrize("unit", ["a", "http://", "authorization: ", "bearer ", "sk-", "?key=", "://", "a-", "?a"])
@pytest.mark.parametrize("more", ["", 'authorization=""', "authorization:\n"])
def test_no_text_takes_long(unit: str, more: str) -> None:
    unit += more
    started = time.perf_counter()
    redact(unit * (200_000 // len(unit)))
    assert time.perf_counter() - started < 1
