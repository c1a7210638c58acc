"""Token-exactness: ids follow the chat format of each family, and text that people wrote never becomes a control token.

`golden/token_ids.json` holds the ids of every family. They depend on this repository alone: on the tokenizers built in
`chat_tokenizers.py` and on `aipo.models.tokens`.
"""

from __future__ import annotations

import json
from collections import Counter
from functools import cache
from pathlib import Path

import pytest
from chat_tokenizers import FAMILIES
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import processors
from transformers import GenerationConfig, PreTrainedTokenizerFast

from aipo.models.batching import collate
from aipo.models.tokens import TokenizerError, completion_from_text, end_of_turn_id, prompt_token_ids, stop_token_ids
from aipo.records import Chat, Message, Pair

GOLDEN = json.loads((Path(__file__).parent / "golden" / "token_ids.json").read_text(encoding="utf-8"))
ONE_TURN = (Message("user", "Say hello"),)
TWO_TURNS = (*ONE_TURN, Message("assistant", "Hello"), Message("user", "You\nare kind"))
CONTROL_NAMES = (Message("user", "a</s>b<s> <|eot_id|><end_of_turn><|im_end|>\n[/INST]"),)
CHATS = {"one_turn": ONE_TURN, "two_turns": TWO_TURNS, "control_names": CONTROL_NAMES}
COMPLETIONS = {"plain": "Hello user", "leading_space": " Hello", "newlines": "\n\nkind", "control_names": "a</s><eos>"}
WRITTEN = st.text(st.one_of(st.sampled_from(" \nabHello<>|/[]▁é\U000f0000"), st.characters(codec="utf-8")), max_size=30)

# Written by hand from each family's published chat format; Ġ and ▁ stand for a space, Ċ and <0x0A> for a newline.
BY_HAND = {
    "llama_3": (
        "<|begin_of_text|> <|start_header_id|> user <|end_header_id|> ĊĊ Say Ġhello <|eot_id|> "
        "<|start_header_id|> assistant <|end_header_id|> ĊĊ",
        "Hello Ġuser <|eot_id|>",
    ),
    "mistral_v1": ("<s> ▁ ▁ [ INST ] ▁Say ▁hello ▁ [ / INST ]", "▁Hello ▁user </s>"),
    "mistral_nemo": ("<s> [INST] Say Ġhello [/INST]", "Hello Ġuser </s>"),
    "gemma_2": (
        "<bos> <start_of_turn> user <0x0A> Say ▁hello <end_of_turn> <0x0A> <start_of_turn> model <0x0A>",
        "Hello ▁user <end_of_turn>",
    ),
    "qwen_25": (
        "<|im_start|> system Ċ You Ġare Ġkind . <|im_end|> Ċ <|im_start|> user Ċ Say Ġhello <|im_end|> Ċ "
        "<|im_start|> assistant Ċ",
        "Hello Ġuser <|im_end|>",
    ),
    "zephyr": (
        "<s> ▁ < | user | > <0x0A> Say ▁hello </s> ▁ <0x0A> < | assistant | > <0x0A>",
        "Hello ▁user </s>",
    ),
}


@cache
def _tokenizer(family: str) -> PreTrainedTokenizerFast:
    return FAMILIES[family]()


@pytest.fixture(params=list(FAMILIES))
def family(request: pytest.FixtureRequest) -> str:
    return request.param


def test_one_turn_by_hand(family: str) -> None:
    tokenizer = _tokenizer(family)
    prompt, completion = BY_HAND[family]
    assert tokenizer.convert_ids_to_tokens(prompt_token_ids(tokenizer, ONE_TURN)) == prompt.split()
    ids = completion_from_text(tokenizer, "Hello user").token_ids
    assert tokenizer.convert_ids_to_tokens(ids) == completion.split()


def test_golden_ids(family: str) -> None:
    tokenizer, golden = _tokenizer(family), GOLDEN[family]
    for name, chat in CHATS.items():
        assert list(prompt_token_ids(tokenizer, chat)) == golden["prompts"][name], name
    for name, text in COMPLETIONS.items():
        assert list(completion_from_text(tokenizer, text).token_ids) == golden["completions"][name], name
    assert end_of_turn_id(tokenizer) == golden["end_of_turn"]
    assert sorted(stop_token_ids(tokenizer)) == golden["stop"]


@pytest.mark.parametrize("chat", CHATS.values(), ids=CHATS.keys())
def test_one_bos_where_the_family_has_one(family: str, chat: Chat) -> None:
    tokenizer = _tokenizer(family)
    ids = prompt_token_ids(tokenizer, chat)
    if tokenizer.bos_token_id is None:
        assert family == "qwen_25"
    else:
        assert ids[0] == tokenizer.bos_token_id and ids.count(tokenizer.bos_token_id) == 1


@pytest.mark.parametrize("chat", [ONE_TURN, TWO_TURNS])
def test_plain_text_is_tokenized_as_transformers_does(family: str, chat: Chat) -> None:
    tokenizer = _tokenizer(family)
    messages = [{"role": turn.role, "content": turn.content} for turn in chat]
    theirs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    bos = [tokenizer.bos_token_id] if family == "zephyr" else []  # its template leaves BOS to the tokenizer
    assert list(prompt_token_ids(tokenizer, chat)) == bos + theirs


def test_the_prompt_of_turn_two_continues_turn_one(family: str) -> None:
    """A conversation read at training is the one that was sampled: prompt, completion and its end of turn."""
    tokenizer = _tokenizer(family)
    sampled = prompt_token_ids(tokenizer, ONE_TURN) + completion_from_text(tokenizer, "Hello").token_ids
    assert prompt_token_ids(tokenizer, TWO_TURNS)[: len(sampled)] == sampled


def test_eos_only_after_a_stop(family: str) -> None:
    tokenizer = _tokenizer(family)
    stop = stop_token_ids(tokenizer, GenerationConfig(eos_token_id=[0, 1]))
    for text in COMPLETIONS.values():
        ended, cut = (completion_from_text(tokenizer, text, finish) for finish in ("stop", "length"))
        assert ended.token_ids == (*cut.token_ids, end_of_turn_id(tokenizer))
        assert not stop & set(cut.token_ids)
        assert ended.n_tokens == cut.n_tokens == len(cut.token_ids)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(list(FAMILIES)), WRITTEN)
def test_a_completion_is_its_text_and_nothing_else(family: str, text: str) -> None:
    tokenizer = _tokenizer(family)
    ids = completion_from_text(tokenizer, text, "length").token_ids
    assert not set(ids) & (set(tokenizer.added_tokens_decoder) - {tokenizer.unk_token_id})
    if family in (
        "llama_3",
        "mistral_nemo",
        "qwen_25",
    ):  # byte-level: lossless
        assert tokenizer.decode(ids) == text


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(list(FAMILIES)), WRITTEN, st.booleans())
def test_written_text_adds_no_control_token(family: str, text: str, named: bool) -> None:
    tokenizer = _tokenizer(family)
    text += "".join(token.content for token in tokenizer.added_tokens_decoder.values()) if named else ""
    control = set(tokenizer.added_tokens_decoder) - {tokenizer.convert_tokens_to_ids("<unk>")}
    counts = [
        Counter(token for token in prompt_token_ids(tokenizer, (Message("user", content),)) if token in control)
        for content in ("a", text)
    ]
    assert counts[0] == counts[1]


@pytest.mark.parametrize("text", ["\nkind", " kind", "\n", ""])
def test_the_boundary_does_not_move(family: str, text: str) -> None:
    """Qwen's `\\n\\n` is one token: `assistant\\n` + `\\nkind` would be tokenized across the boundary as one text."""
    tokenizer = _tokenizer(family)
    prompt = prompt_token_ids(tokenizer, ONE_TURN)
    chosen, rejected = completion_from_text(tokenizer, text), completion_from_text(tokenizer, "Hello", "length")
    batch = collate([Pair("p", "p", prompt, chosen, rejected, 1.0, 0.0)], shared=False)
    seen = [*batch.input_ids[0, : len(prompt) + len(chosen.token_ids) - 1].tolist(), chosen.token_ids[-1]]
    assert seen == [*prompt, *chosen.token_ids]
    assert batch.targets.tolist() == [*chosen.token_ids, *rejected.token_ids]
    spelt = tokenizer.decode(chosen.token_ids[:-1])
    assert spelt == text or (family in ("mistral_v1", "zephyr") and spelt.strip(" ") == text.strip(" "))


def test_a_merge_across_the_boundary_would_happen() -> None:
    tokenizer = _tokenizer("qwen_25")
    whole = tokenizer("assistant\n\nkind")["input_ids"]
    assert tokenizer.convert_ids_to_tokens(whole) == ["assistant", "ĊĊ", "kind"]
    ids = completion_from_text(tokenizer, "\nkind", "length").token_ids
    assert tokenizer.convert_ids_to_tokens(ids) == ["Ċ", "kind"]


@pytest.mark.parametrize(
    ("listed", "extra"), [(None, set()), (0, {0}), ([0, 1], {0, 1})], ids=["none", "number", "list"]
)
def test_stop_ids_take_in_the_generation_config(listed: int | list[int] | None, extra: set[int]) -> None:
    tokenizer = _tokenizer("gemma_2")  # EOS 1, end of turn 5
    assert stop_token_ids(tokenizer, GenerationConfig(eos_token_id=listed)) == {1, 5} | extra


def test_a_template_that_doubles_bos_is_refused() -> None:
    tokenizer = FAMILIES["llama_3"]()
    tokenizer.chat_template = "{{ bos_token }}" + tokenizer.chat_template
    with pytest.raises(TokenizerError, match=r"expected one BOS \('<\|begin_of_text\|>'\) before a prompt, got two"):
        prompt_token_ids(tokenizer, ONE_TURN)


@pytest.mark.parametrize("written", ["{{ 'Today: ' + strftime_now('%d %b %Y') }}", "{{ 'Today: ' ~ today() }}"])
def test_a_template_that_asks_for_the_date_is_told_the_same_one_every_day(written: str) -> None:
    """In two forms, the second inside a macro of the template's own; white space at its beginning is kept."""
    tokenizer = FAMILIES["llama_3"]()
    macro = "{% macro today() %}{{ strftime_now('%d %b %Y') }}{% endmacro %}"
    tokenizer.chat_template = "\n" + macro + written + tokenizer.chat_template
    text = tokenizer.decode(prompt_token_ids(tokenizer, ONE_TURN))
    assert text.startswith("\nToday: 26 Jul 2024<|begin_of_text|>")
    assert end_of_turn_id(tokenizer) == end_of_turn_id(_tokenizer("llama_3"))


def test_of_several_named_templates_the_default_one_is_taken() -> None:
    tokenizer, plain = FAMILIES["llama_3"](), _tokenizer("llama_3")
    tokenizer.chat_template = {"default": plain.chat_template, "tool_use": "{{ 'tools' }}"}
    assert prompt_token_ids(tokenizer, ONE_TURN) == prompt_token_ids(plain, ONE_TURN)
    assert completion_from_text(tokenizer, "Hello") == completion_from_text(plain, "Hello")
    assert stop_token_ids(tokenizer) == stop_token_ids(plain)


@pytest.mark.parametrize("chat", [ONE_TURN, TWO_TURNS])
def test_a_token_that_is_bos_and_eos_begins_a_prompt_all_the_same(chat: Chat) -> None:
    """Zephyr's format ends the user's turn with EOS, which is no BOS before the prompt."""
    tokenizer = FAMILIES["zephyr"]()
    tokenizer.bos_token = tokenizer.eos_token
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="</s> $A", special_tokens=[("</s>", tokenizer.eos_token_id)]
    )
    ids, usual = prompt_token_ids(tokenizer, chat), prompt_token_ids(_tokenizer("zephyr"), chat)
    assert ids == (tokenizer.eos_token_id, *usual[1:])


def test_a_base_model_without_a_template_is_refused() -> None:
    tokenizer = FAMILIES["llama_3"]()
    tokenizer.chat_template = None
    with pytest.raises(TokenizerError, match="no chat template; set model.chat_template"):
        prompt_token_ids(tokenizer, ONE_TURN)


def test_a_refused_role_is_named() -> None:
    with pytest.raises(TokenizerError, match="refuses a chat with the roles system, user: no system role"):
        prompt_token_ids(_tokenizer("gemma_2"), (Message("system", "You are kind"), *ONE_TURN))
