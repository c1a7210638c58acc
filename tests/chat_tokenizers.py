"""Small tokenizers with the control tokens, pre-processing and chat formats of well-known model families.

Vocabularies are made up from a few words; what matters is how BOS, end-of-turn, spaces and newlines are treated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

WORDS = ("Hello", "hello", "the", "there", "user", "assistant", "model", "system", "You", "are", "kind", "Say", "INST")
SPACE = "▁"

LLAMA_3_CHAT = (
    "{{ bos_token }}{% for m in messages %}"
    "{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' + (m.content | trim) + '<|eot_id|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
MISTRAL_V1_CHAT = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}{{ ' [INST] ' + m.content + ' [/INST]' }}"
    "{% elif m.role == 'assistant' %}{{ ' ' + m.content + eos_token }}"
    "{% else %}{{ raise_exception('only user and assistant take turns') }}{% endif %}{% endfor %}"
)
MISTRAL_NEMO_CHAT = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}{{ '[INST]' + m.content + '[/INST]' }}"
    "{% elif m.role == 'assistant' %}{{ m.content + eos_token }}"
    "{% else %}{{ raise_exception('only user and assistant take turns') }}{% endif %}{% endfor %}"
)
GEMMA_2_CHAT = (
    "{{ bos_token }}{% for m in messages %}"
    "{% if m.role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    "{{ '<start_of_turn>' + ('model' if m.role == 'assistant' else m.role) + '\n' + (m.content | trim)"
    " + '<end_of_turn>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
QWEN_25_CHAT = (
    "{% if messages[0].role != 'system' %}{{ '<|im_start|>system\nYou are kind.<|im_end|>\n' }}{% endif %}"
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
ZEPHYR_CHAT = (
    "{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content + eos_token + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)


def llama_3() -> PreTrainedTokenizerFast:
    """Byte-level with a token for two newlines; plain text gets BOS; two tokens may end an answer."""
    names = ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
    return _finish(_byte_level(names), LLAMA_3_CHAT, bos=names[0], eos=names[4])


def mistral_v1() -> PreTrainedTokenizerFast:
    """SentencePiece-like, a space put before text; `[INST]` is plain text, and the answer follows a space."""
    return _finish(_sentencepiece(("<unk>", "<s>", "</s>"), prefix=True), MISTRAL_V1_CHAT, bos="<s>", eos="</s>")


def mistral_nemo() -> PreTrainedTokenizerFast:
    """Byte-level; `[INST]` and `[/INST]` are control tokens, and no space stands around them."""
    names = ("<unk>", "<s>", "</s>", "[INST]", "[/INST]")
    return _finish(_byte_level(names), MISTRAL_NEMO_CHAT, bos="<s>", eos="</s>")


def gemma_2() -> PreTrainedTokenizerFast:
    """SentencePiece-like without a leading space; EOS is not the end of a turn; text is trimmed."""
    names = ("<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>")
    return _finish(_sentencepiece(names, prefix=False), GEMMA_2_CHAT, bos="<bos>", eos="<eos>")


def qwen_25() -> PreTrainedTokenizerFast:
    """Byte-level, no BOS at all, a system prompt of its own."""
    names = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
    return _finish(_byte_level(names), QWEN_25_CHAT, bos=None, eos="<|im_end|>")


def zephyr() -> PreTrainedTokenizerFast:
    """Mistral's tokenizer; roles are plain text, and the template leaves BOS to the tokenizer."""
    return _finish(_sentencepiece(("<unk>", "<s>", "</s>"), prefix=True), ZEPHYR_CHAT, bos="<s>", eos="</s>")


FAMILIES: dict[str, Callable[[], PreTrainedTokenizerFast]] = {
    build.__name__: build for build in (llama_3, mistral_v1, mistral_nemo, gemma_2, qwen_25, zephyr)
}


def _finish(tokenizer: Tokenizer, chat: str, *, bos: str | None, eos: str) -> PreTrainedTokenizerFast:
    if bos is not None:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, tokenizer.token_to_id(bos))]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=bos,
        eos_token=eos,
        chat_template=chat,
        clean_up_tokenization_spaces=False,
    )


def _byte_level(names: Iterable[str]) -> Tokenizer:
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = _bpe(names, letters, "Ġ")
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _sentencepiece(names: Iterable[str], *, prefix: bool) -> Tokenizer:
    letters = [f"<0x{byte:02X}>" for byte in range(256)] + [chr(code) for code in range(33, 127)] + [SPACE]
    tokenizer = _bpe(names, letters, SPACE, byte_fallback=True)
    spaces = normalizers.Replace(" ", SPACE)
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE), spaces]) if prefix else spaces
    pieces = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence(pieces + ([decoders.Strip(" ", 1, 0)] if prefix else []))
    return tokenizer


def _bpe(names: Iterable[str], letters: list[str], space: str, *, byte_fallback: bool = False) -> Tokenizer:
    """One token for every word of `WORDS`, for a space and that word, and for two newlines."""
    names = list(names)
    merges: dict[tuple[str, str], None] = {}
    for word in WORDS:
        merges |= dict.fromkeys((word[:end], word[end]) for end in range(1, len(word)))
    merges |= dict.fromkeys((space, word) for word in WORDS)
    if "Ċ" in letters:
        merges["Ċ", "Ċ"] = None
    tokens = [*names, *letters, *dict.fromkeys(first + second for first, second in merges)]
    model = models.BPE(
        {token: number for number, token in enumerate(tokens)},
        list(merges),
        byte_fallback=byte_fallback,
        unk_token="<unk>" if "<unk>" in names else None,
        fuse_unk=True,
    )
    tokenizer = Tokenizer(model)
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in names])
    return tokenizer
