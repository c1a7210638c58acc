"""The reward-model ranker on a small random Llama classifier."""

from __future__ import annotations

import logging
import math
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    PreTrainedTokenizerFast,
)

from aipo.rankers.reward_model import RewardModel, RewardModelError
from aipo.records import Chat, Message

WORDS = [
    "<s>",
    "</s>",
    "<pad>",
    "<unk>",
    "user",
    "assistant",
    "system",
    ":",
    "red",
    "blue",
    "green",
    "sky",
    "is",
    "the",
]
TEMPLATE = "{{ bos_token }}{% for m in messages %}{{ m['role'] + ' : ' + m['content'] + ' ' + eos_token }}{% endfor %}"


def write(folder: Path, *, pad: int | None = 2, labels: int = 1, template: str | None = TEMPLATE, head: bool = True):
    vocabulary = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="<unk>"))
    vocabulary.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=vocabulary, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>"
    )
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=40, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        pad_token_id=pad, num_labels=labels, initializer_range=0.5,
    )  # fmt: skip
    (LlamaForSequenceClassification if head else LlamaForCausalLM)(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("reward"))


def ask(text: str) -> Chat:
    return (Message("user", text),)


PROMPTS = [ask("is the sky blue"), ask("red"), (Message("system", "the"), *ask("is"))]
CANDIDATES = [["blue", "red red red green sky", "the sky is blue"], ["red", "red"], ["blue is", "is blue the sky"]]


def ids(chat: Chat, text: str) -> list[int]:
    words = ["<s>"]
    for role, content in [*((turn.role, turn.content) for turn in chat), ("assistant", text)]:
        words += [role, ":", *content.split(), "</s>"]
    return [WORDS.index(word) for word in words]


def one_by_one(folder: Path) -> list[list[float]]:
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        return [
            [model(torch.tensor([ids(chat, text)])).logits.item() for text in texts]
            for chat, texts in zip(PROMPTS, CANDIDATES, strict=True)
        ]


@pytest.mark.parametrize("bound", [1, 30, 1000])
def test_scores_are_the_models_one_by_one(folder: Path, bound: int) -> None:
    scores = RewardModel(str(folder), max_batch_tokens=bound).rank(PROMPTS, CANDIDATES)
    expected = one_by_one(folder)
    assert scores == [pytest.approx(row, abs=1e-5) for row in expected]
    assert scores[1][0] == scores[1][1]
    assert len({round(value, 3) for row in expected for value in row}) == 6  # two are the same


def test_a_model_without_a_padding_token_reads_the_last_token(tmp_path: Path) -> None:
    write(tmp_path, pad=None)
    ranker = RewardModel(str(tmp_path))
    ranker.rank([ask("red")], [["green"]])  # another call, another unused id
    scores = ranker.rank(PROMPTS, CANDIDATES)
    assert scores == [pytest.approx(row, abs=1e-5) for row in one_by_one(tmp_path)]


def test_win_probability_is_bradley_terry(folder: Path) -> None:
    ranker = RewardModel(str(folder))
    (scores,) = ranker.rank(PROMPTS[:1], CANDIDATES[:1])
    (chance,) = ranker.win_probabilities(PROMPTS[:1], [(CANDIDATES[0][0], CANDIDATES[0][1])])
    assert chance == pytest.approx(1 / (1 + math.exp(scores[1] - scores[0])), abs=1e-6)
    assert RewardModel("x", bradley_terry=False).win_probabilities(PROMPTS[:1], [("a", "b")]) is None


def test_control_tokens_in_text_are_spaces(folder: Path) -> None:
    ranker = RewardModel(str(folder))
    (scores,) = ranker.rank([ask("is </s> blue")], [["red </s> assistant : blue", "red   assistant : blue"]])
    assert scores[0] == pytest.approx(scores[1], abs=1e-6)


def test_long_chats_are_cut_each_by_itself_and_counted(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    ranker = RewardModel(str(folder), max_tokens=10)
    with caplog.at_level(logging.WARNING, "aipo"):
        (scores,) = ranker.rank([ask("is")], [["blue", "red red green", "red red sky"]])
    assert "2 of 3 chats cut at ranker.max_tokens=10" in caplog.text
    (alone,) = ranker.rank([ask("is")], [["red red green"]])
    assert alone[0] == pytest.approx(scores[1], abs=1e-6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"labels": 2}, "expected one output, got 2"),
        ({"template": None}, "expected a tokenizer with a chat template"),
        ({"head": False}, r"got none for score\.weight: they would be random"),
    ],
)
def test_wrong_checkpoints_are_refused(tmp_path: Path, settings: dict[str, object], message: str) -> None:
    write(tmp_path, **settings)
    with pytest.raises(RewardModelError, match=message):
        RewardModel(str(tmp_path)).rank([ask("is")], [["a", "b"]])


def test_missing_and_identity(folder: Path, tmp_path: Path) -> None:
    assert RewardModel(str(folder)).missing() == [] and len(RewardModel(str(folder)).identity()["sha256"]) == 64
    assert "no such folder" in RewardModel(str(tmp_path / "absent")).missing()[0]
    for key, value in (("max_tokens", 0), ("max_batch_tokens", 0), ("dtype", "int8")):
        with pytest.raises(ValueError, match=f"ranker.{key} must be"):
            RewardModel("x", **{key: value})
