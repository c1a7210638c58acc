"""Where text becomes token ids: once, from the chat template, and never again for ids that are known."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal

from aipo.records import Chat, Completion

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedTokenizerBase


class TokenizerError(ValueError):
    """A tokenizer or its chat template cannot be used as it is."""


def prompt_token_ids(tokenizer: PreTrainedTokenizerBase, chat: Chat) -> tuple[int, ...]:
    """The chat as ids, up to where the assistant's next turn begins. Exactly one BOS if the tokenizer has one."""
    if not tokenizer.chat_template:
        raise TokenizerError(f"{tokenizer.name_or_path}: no chat template; set model.chat_template")
    ids = _template_ids(tokenizer, chat, add_generation_prompt=True)
    bos = tokenizer.bos_token_id
    if bos is not None and ids.count(bos) > 1:
        raise TokenizerError(
            f"{tokenizer.name_or_path}: expected one BOS ({tokenizer.bos_token!r}) in a prompt, got {ids.count(bos)}; "
            "the chat template or the text adds another"
        )
    return tuple(ids)


def end_of_turn_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """The token that the chat template puts behind an assistant's turn."""
    question = {"role": "user", "content": "a"}
    prompt = _template_ids(tokenizer, [question], add_generation_prompt=True)
    whole = _template_ids(tokenizer, [question, {"role": "assistant", "content": "b"}], add_generation_prompt=False)
    special = set(tokenizer.all_special_ids) | set(tokenizer.added_tokens_decoder)
    shared = 0
    while shared < min(len(prompt), len(whole)) and prompt[shared] == whole[shared]:
        shared += 1
    for token in whole[shared:]:
        if token in special:
            return token
    if tokenizer.eos_token_id is None:
        raise TokenizerError(
            f"{tokenizer.name_or_path}: the chat template ends no assistant turn by a special token; there is no EOS"
        )
    return tokenizer.eos_token_id


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


def completion_from_text(
    tokenizer: PreTrainedTokenizerBase, text: str, finish: Literal["stop", "length"] = "stop"
) -> Completion:
    """A completion that arrived as text (a data set's, a server's): its ids, ended when it finished by itself."""
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    ending = [end_of_turn_id(tokenizer)] if finish == "stop" else []
    return Completion(text, (*ids, *ending), finish)


def _template_ids(tokenizer: PreTrainedTokenizerBase, chat: Iterable, *, add_generation_prompt: bool) -> list[int]:
    messages = [turn if isinstance(turn, dict) else {"role": turn.role, "content": turn.content} for turn in chat]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=add_generation_prompt)
    return tokenizer(text, add_special_tokens=False)["input_ids"]
