"""Where text becomes token ids: once, from the chat template, and never again for ids that are known.

Text that people or models wrote is only text: a literal `<s>` or `<|im_end|>` in it is never read as the control token
of that name.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Literal, NamedTuple

from aipo.records import Chat, Completion

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedTokenizerBase

_MARK = 0xF0000
"""The first of the private-use characters that stand for a control token's name while a template is rendered."""
_ANSWER = chr(_MARK - 1)
_BREAK = chr(_MARK - 2)
DAY = datetime(2024, 7, 26)
"""What a chat template is told that asks for today's date, as those of Llama 3.1 and later do: the day that they take
where they are told none."""


class TokenizerError(ValueError):
    """A tokenizer or its chat template cannot be used as it is."""


def prompt_token_ids(tokenizer: PreTrainedTokenizerBase, chat: Chat) -> tuple[int, ...]:
    """The chat as ids, up to where the assistant's next turn begins.

    It begins with one BOS where the template writes it or the tokenizer puts it before plain text (Zephyr). The same
    chat has the same ids on every day.
    """
    ids = _template_ids(tokenizer, chat)
    bos = tokenizer.bos_token_id
    if bos is not None:
        # A token that is BOS and EOS in one may be in there as the end of a turn alone.
        if bos not in ids or (bos == tokenizer.eos_token_id and ids[0] != bos):
            ids = [*_own_bos(tokenizer), *ids]
        if ids[:2] == [bos, bos]:
            raise TokenizerError(
                f"{tokenizer.name_or_path}: expected one BOS ({tokenizer.bos_token!r}) before a prompt, got two; "
                "correct its chat template (model.chat_template)"
            )
    return tuple(ids)


def plain_token_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> tuple[int, ...]:
    """Text to be continued, without a chat template. It begins with BOS where the tokenizer puts one before text."""
    return tuple([*_own_bos(tokenizer), *_plain_ids(tokenizer, text)])


def chat_template(tokenizer: PreTrainedTokenizerBase) -> str:
    """The tokenizer's template for plain chats. It is told `DAY` as today's date: else a run that goes on tomorrow, and
    one with the same seed, would have other prompts. TokenizerError where there is none."""
    if not tokenizer.chat_template:
        raise TokenizerError(f"{tokenizer.name_or_path}: no chat template; set model.chat_template")
    found = tokenizer.get_chat_template()
    return _todays_date() + found if "strftime_now" in found else found


def end_of_turn_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """The token that the chat template puts behind an assistant's turn."""
    return _assistant_turn(tokenizer, chat_template(tokenizer)).end_of_turn


def stop_token_ids(
    tokenizer: PreTrainedTokenizerBase, generation_config: GenerationConfig | None = None
) -> frozenset[int]:
    """Every token that ends a completion: end of turn, EOS, and those the model's generation config lists."""
    ids = {end_of_turn_id(tokenizer)}
    if tokenizer.eos_token_id is not None:
        ids.add(tokenizer.eos_token_id)
    listed = generation_config.eos_token_id if generation_config is not None else None
    if listed is not None:
        ids.update(listed if isinstance(listed, Iterable) else [listed])
    return frozenset(ids)


def room_for_answers(prompt_tokens: Sequence[int], context_tokens: int | None, wanted: int, model: str) -> list[int]:
    """How many of `wanted` new tokens each prompt leaves room for in the model's context (None: it has no limit).

    A completion that fills the context ends by length. A prompt that fills it alone raises ValueError.
    """
    if context_tokens is None:
        return [wanted] * len(prompt_tokens)
    longest = max(prompt_tokens, default=0)
    if longest >= context_tokens:
        raise ValueError(
            f"a prompt has {longest} tokens, but {model} has a context of {context_tokens}, answer included; filter "
            "prompts by length"
        )
    return [min(wanted, context_tokens - tokens) for tokens in prompt_tokens]


def completion_from_text(
    tokenizer: PreTrainedTokenizerBase, text: str, finish: Literal["stop", "length"] = "stop"
) -> Completion:
    """A completion that arrived as text (a data set's, a server's): its ids, ended when it finished by itself.

    The ids are those that the text has behind the generation prompt, as long as no token spans the boundary.
    """
    turn = _assistant_turn(tokenizer, chat_template(tokenizer))
    before = _plain_ids(tokenizer, turn.opening)
    whole = _plain_ids(tokenizer, turn.opening + turn.lead + text)
    fits = whole[: len(before)] == before
    ids = whole[len(before) :] if fits else _plain_ids(tokenizer, text)
    ending = [turn.end_of_turn] if finish == "stop" else []
    return Completion(text, (*ids, *ending), finish)


class _AssistantTurn(NamedTuple):
    opening: str
    """The generation prompt from behind its last control token on: `\\n<|assistant|>\\n` for Zephyr."""
    lead: str
    """What the template writes between generation prompt and answer: a space for the first Mistral models."""
    end_of_turn: int


@functools.lru_cache(maxsize=8)
def _assistant_turn(tokenizer: PreTrainedTokenizerBase, template: str) -> _AssistantTurn:
    """How the template frames an answer. `template` is the tokenizer's own: it only keys the cache."""
    question = {"role": "user", "content": "a"}
    prompt = _render(tokenizer, [question], add_generation_prompt=True)
    answered = _render(tokenizer, [question, {"role": "assistant", "content": _ANSWER}], add_generation_prompt=False)
    head, found, tail = answered.rpartition(_ANSWER)
    if not found:
        raise TokenizerError(f"{tokenizer.name_or_path}: the chat template leaves out what the assistant says")
    lead = head.removeprefix(prompt) if head.startswith(prompt) else ""
    opening = re.split(_names(tokenizer), prompt)[-1]
    special = set(tokenizer.all_special_ids) | set(tokenizer.added_tokens_decoder)
    ending = [token for token in tokenizer(tail, add_special_tokens=False)["input_ids"] if token in special]
    if not ending and tokenizer.eos_token_id is None:
        raise TokenizerError(
            f"{tokenizer.name_or_path}: the chat template ends no assistant turn by a special token; there is no EOS"
        )
    return _AssistantTurn(opening, lead, ending[0] if ending else tokenizer.eos_token_id)


def _template_ids(tokenizer: PreTrainedTokenizerBase, chat: Chat) -> list[int]:
    """Ids of a chat and the generation prompt. Names of control tokens in what people wrote are spelt out as text."""
    names = _names(tokenizer)
    marks: dict[str, str] = {}

    def mark(match: re.Match[str]) -> str:
        return marks.setdefault(match[0], chr(_MARK + len(marks)))

    messages = [{"role": turn.role, "content": re.sub(names, mark, turn.content)} for turn in chat]
    text = _render(tokenizer, messages, add_generation_prompt=True)
    if not marks:
        # Not verbose: whoever samples tells of a text that is too long, in words of its own.
        return tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    written = {character: name for name, character in marks.items()}
    ids: list[int] = []
    for part in re.split(f"([{''.join(written)}])", text):
        if part in written:
            ids += _plain_ids(tokenizer, written[part])
        elif part:
            ids += tokenizer(part, add_special_tokens=False, verbose=False)["input_ids"]
    return ids


def _render(tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, str]], *, add_generation_prompt: bool) -> str:
    from jinja2 import TemplateError

    template = chat_template(tokenizer)
    try:
        return tokenizer.apply_chat_template(
            messages, chat_template=template, tokenize=False, add_generation_prompt=add_generation_prompt
        )
    except TemplateError as error:
        roles = ", ".join(message["role"] for message in messages)
        raise TokenizerError(
            f"{tokenizer.name_or_path}: the chat template refuses a chat with the roles {roles}: {error}"
        ) from error


@functools.cache
def _todays_date() -> str:
    """A macro in place of transformers' function `strftime_now`: no Python function can be handed to a template."""
    codes = [*"aAbBcdDeFHIjmMpSTuwxXyY", "-d", "-m"]
    told = "".join(f" | replace('%{code}', '{DAY.strftime(f'%{code}')}')" for code in codes)
    return "{%- macro strftime_now(format) -%}{{ format" + told + " }}{%- endmacro %}\n"  # a newline that no text gets


def _own_bos(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """BOS if the tokenizer puts it before plain text, else nothing."""
    bos = tokenizer.bos_token_id
    return [bos] if bos is not None and tokenizer("a")["input_ids"][0] == bos else []


def _plain_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    ids = tokenizer(text, add_special_tokens=False, split_special_tokens=True, verbose=False)["input_ids"]
    control = {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    if (control - {tokenizer.unk_token_id}).isdisjoint(ids):
        return ids
    # The vocabulary holds such a name as a word, too. In two parts it is none.
    parts = re.sub(_names(tokenizer), lambda match: match[0][0] + _BREAK + match[0][1:], text).split(_BREAK)
    return [
        number for part in parts
        for number in tokenizer(part, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    ]  # fmt: skip


def _names(tokenizer: PreTrainedTokenizerBase) -> re.Pattern[str]:
    """Matches the name of any control token, and the characters that stand for one."""
    return _pattern(tuple(token.content for token in tokenizer.added_tokens_decoder.values() if token.special))


@functools.lru_cache(maxsize=8)
def _pattern(names: tuple[str, ...]) -> re.Pattern[str]:
    longest_first = sorted(names, key=len, reverse=True)
    return re.compile("|".join([*map(re.escape, longest_first), f"[{chr(_MARK)}-{chr(_MARK + 0xFFFD)}]"]))
