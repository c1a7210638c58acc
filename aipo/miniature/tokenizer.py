"""The word-level tokenizer of the miniature: a closed vocabulary, lossless on every text the world can produce."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aipo.miniature.corpus import TASK_LIST_HEADER
from aipo.miniature.world import WORD_PATTERN, all_words, split_words

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

BOS, END_OF_TURN, PAD, UNKNOWN, USER, ASSISTANT = "<s>", "<|end|>", "<pad>", "<unk>", "<|user|>", "<|assistant|>"
SPECIAL_TOKENS = (PAD, UNKNOWN, BOS, END_OF_TURN, USER, ASSISTANT)

CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}{{ '<|user|>' + message['content'] + eos_token }}"
    "{% elif message['role'] == 'assistant' %}{{ '<|assistant|>' + message['content'] + eos_token }}"
    "{% else %}{{ raise_exception('The miniature knows the roles user and assistant, got ' + message['role']) }}"
    "{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)

_LIST_NUMBERS = 20


def vocabulary() -> list[str]:
    """Every token, special ones first; the position is the id."""
    words = {*all_words(), *split_words(TASK_LIST_HEADER), *(str(number) for number in range(1, _LIST_NUMBERS + 1))}
    # A task in a list stands after "1.", hence with a space before its first word; lone spaces keep odd text lossless.
    words |= {f" {word}" for word in words if word[0].isupper()} | {" ", "\n", ".", ",", "?", ":"}
    return [*SPECIAL_TOKENS, *sorted(words)]


def build_tokenizer() -> PreTrainedTokenizerFast:
    """The tokenizer with its chat template. Plain text gets one BOS; so does a chat, from the template."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    ids = {token: index for index, token in enumerate(vocabulary())}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(WORD_PATTERN), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, ids[BOS])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=END_OF_TURN,
        pad_token=PAD,
        unk_token=UNKNOWN,
        additional_special_tokens=[USER, ASSISTANT],
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=512,
        padding_side="left",
    )
