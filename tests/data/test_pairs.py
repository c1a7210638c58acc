"""Pairs: best against worst, and every prompt that gives none counted under its reason."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from aipo.data.pairs import REASONS, NoPairs, PairFilters, build_pairs, require_pairs
from aipo.data.recipe import Recipe
from aipo.models.tokens import completion_from_text
from aipo.records import Candidates, Completion, Example, Message, Prompt

OFF = PairFilters(max_prompt_tokens=None, max_completion_tokens=None, drop_truncated=False, drop_url_in_chosen=False)
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{{ m['role'] + ' ' + m['content'] + eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant ' }}{% endif %}"
)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    """One token per character. A prompt of one turn takes 17 more: BOS, `user `, EOS and `assistant `."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers

    vocabulary = {token: place for place, token in enumerate(["<s>", "</s>", "<unk>", *map(chr, range(32, 127))])}
    characters = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    characters.pre_tokenizer = pre_tokenizers.Split(Regex("."), behavior="isolated")
    made = PreTrainedTokenizerFast(
        tokenizer_object=characters, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="</s>"
    )
    made.chat_template = TEMPLATE
    return made


def completion(text: str, finish: Any = "stop") -> Completion:
    return Completion(text, (*range(len(text)), *([1] if finish == "stop" else [])), finish)


def row(*texts: str, scores: tuple[float, ...] | None = None, prompt: str = "x", number: int = 0) -> Candidates:
    asked = Prompt(f"p{number}", (Message("user", prompt),), "pool")
    return Candidates(asked, tuple(map(completion, texts)), scores or tuple(map(float, range(len(texts)))))


def cut(first: Any, second: Any) -> Candidates:
    return replace(row("a", "b"), completions=(completion("a", first), completion("b", second)))


def reasons(dropped: dict[str, int]) -> dict[str, int]:
    assert list(dropped) == list(REASONS)
    return {reason: count for reason, count in dropped.items() if count}


def test_best_against_worst(tokenizer: PreTrainedTokenizerFast) -> None:
    candidates = [row("aa", "b", "c", "dd", scores=(0.5, -1.0, 2.0, 0.0)), row("e", "f", number=1)]
    pairs, dropped = build_pairs(candidates, tokenizer, OFF, [0.75, None])
    assert reasons(dropped) == {}
    first, second = pairs
    assert (first.chosen.text, first.rejected.text) == ("c", "b")
    assert (first.chosen_score, first.rejected_score, first.win_probability) == (2.0, -1.0, 0.75)
    assert (first.pair_id, first.prompt_id) == ("p0/2-1", "p0") and len(first.prompt_token_ids) == 18
    assert (second.chosen.text, second.rejected.text, second.win_probability) == ("f", "e", None)


def test_of_equal_scores_the_first_counts(tokenizer: PreTrainedTokenizerFast) -> None:
    (pair,), _ = build_pairs([row("a", "b", "c", "d", scores=(1.0, 2.0, 2.0, 1.0))], tokenizer, OFF)
    assert (pair.chosen.text, pair.rejected.text) == ("b", "a")


@pytest.mark.parametrize(
    ("candidates", "filters", "reason"),
    [
        (row("a"), {}, "unranked"),
        (row("a", "b", scores=(1.0, math.nan)), {}, "unranked"),
        (row("a", "b", scores=(1.0, 1.0)), {}, "tie"),
        (row("a", "a"), {}, "identical"),
        (row("a", " \n"), {}, "empty"),
        (row("", "b"), {}, "empty"),
        (cut("stop", "length"), {"drop_truncated": True}, "truncated"),
        (cut("length", "stop"), {"drop_truncated": True}, "truncated"),
        (cut("length", "stop"), {}, None),
        (row("a", "b", prompt="x" * 4), {"max_prompt_tokens": 20}, "prompt_too_long"),
        (row("a", "b", prompt="x" * 3), {"max_prompt_tokens": 20}, None),
        (row("a", "b" * 6), {"max_completion_tokens": 5}, "completion_too_long"),
        (row("a" * 6, "b"), {"max_completion_tokens": 5}, "completion_too_long"),
        (row("a" * 5, "b" * 5), {"max_completion_tokens": 5}, None),
        (row("a", "see https://b.c"), {"drop_url_in_chosen": True}, "url"),
        (row("a", "see http://b.c"), {"drop_url_in_chosen": True}, "url"),
        (row("see https://b.c", "a"), {"drop_url_in_chosen": True}, None),
        (row("a", "see https://b.c"), {}, None),
        (row("a", "b", "c", scores=(math.nan, 1.0, 0.0)), {}, None),
    ],
)  # fmt: skip
def test_every_drop_has_its_reason(
    tokenizer: PreTrainedTokenizerFast, candidates: Candidates, filters: dict[str, Any], reason: str | None
) -> None:
    fine = row("bad", "good", number=9)
    pairs, dropped = build_pairs([candidates, fine], tokenizer, replace(OFF, **filters))
    assert reasons(dropped) == ({reason: 1} if reason else {})
    assert len(pairs) == (1 if reason else 2) and pairs[-1].prompt_id == "p9"


def test_the_first_reason_that_applies_counts(tokenizer: PreTrainedTokenizerFast) -> None:
    strict = PairFilters(max_prompt_tokens=1, max_completion_tokens=1, drop_truncated=True, drop_url_in_chosen=True)
    url = "https://a.b"
    both = replace(row("a", url), completions=(completion(""), completion(url, "length")))
    candidates = [row(url, url, scores=(0.0, 0.0)), row(url, url), both, row("a", url)]
    assert reasons(build_pairs(candidates, tokenizer, strict)[1]) == {
        "tie": 1, "identical": 1, "empty": 1, "prompt_too_long": 1
    }  # fmt: skip


def test_the_end_of_turn_is_no_length(tokenizer: PreTrainedTokenizerFast) -> None:
    unfinished = Completion("abc", (5, 6, 7), "length")
    assert unfinished.n_tokens == completion_from_text(tokenizer, "abc").n_tokens == 3
    candidates = replace(row("a", "b"), completions=(completion_from_text(tokenizer, "a"), unfinished))
    assert len(build_pairs([candidates], tokenizer, replace(OFF, max_completion_tokens=3))[0]) == 1


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (None, r"prompt p0: expected 2 scores, one per completion, got none; rank the candidates first"),
        ((1.0,), r"prompt p0: expected 2 scores, one per completion, got 1"),
        ((1.0, math.inf), r"prompt p0: the ranker gave an infinite score"),
    ],
)
def test_missing_scores_are_errors(
    tokenizer: PreTrainedTokenizerFast, scores: tuple[float, ...] | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        build_pairs([replace(row("a", "b"), scores=scores)], tokenizer, OFF)


def test_one_probability_per_prompt(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(ValueError, match=r"one win probability per prompt \(1\), got 2"):
        build_pairs([row("a", "b")], tokenizer, OFF, [0.5, 0.5])


def test_nothing_left_says_where_it_went(tokenizer: PreTrainedTokenizerFast) -> None:
    pairs, dropped = build_pairs([row("a", "a"), row("b", "b"), row("a")], tokenizer, OFF)
    with pytest.raises(NoPairs, match=r"no pair is left to train on; dropped: unranked 1, identical 2\. Loosen"):
        require_pairs(pairs, dropped)
    with pytest.raises(NoPairs, match="there was no prompt"):
        require_pairs([], {})
    require_pairs(build_pairs([row("a", "b")], tokenizer, OFF)[0], {})


@pytest.mark.parametrize("name", ["max_prompt_tokens", "max_completion_tokens"])
def test_limits_are_positive(name: str) -> None:
    with pytest.raises(ValueError, match=f"PairFilters.{name} must be at least 1, or null for no limit, got 0"):
        replace(OFF, **{name: 0})


texts = st.lists(st.sampled_from(["a", "b", "bb", "", " ", "https://x.y", "long long text"]), min_size=1, max_size=4)


@given(st.lists(st.tuples(texts, st.integers(0, 10**6), st.text("xyz", max_size=6)), max_size=6), st.booleans())
def test_every_prompt_is_a_pair_or_a_drop(
    tokenizer: PreTrainedTokenizerFast, drawn: list[tuple[list[str], int, str]], strict: bool
) -> None:
    filters = PairFilters(20, 5, True, True) if strict else OFF
    candidates = [
        row(
            *words,
            scores=tuple(float(seed // 7**place % 3) for place in range(len(words))),
            prompt=asked,
            number=number,
        )
        for number, (words, seed, asked) in enumerate(drawn)
    ]
    pairs, dropped = build_pairs(candidates, tokenizer, filters)
    assert len(pairs) + sum(dropped.values()) == len(candidates)
    by_id = {candidate.prompt.prompt_id: candidate for candidate in candidates}
    for pair in pairs:
        scores = by_id[pair.prompt_id].scores
        assert (pair.chosen_score, pair.rejected_score) == (max(scores), min(scores))
        assert pair.chosen_score > pair.rejected_score and pair.chosen.text != pair.rejected.text
        assert pair.chosen.text.strip() and pair.rejected.text.strip()
        if strict:
            assert len(pair.prompt_token_ids) <= 20 and max(pair.chosen.n_tokens, pair.rejected.n_tokens) <= 5
            assert "https://" not in pair.chosen.text


class NoSource:
    def identity(self) -> dict[str, str]:
        return {}

    def load(self) -> tuple[list[Example], dict[str, int]]:
        return [], {}


@pytest.mark.parametrize(
    ("prompts", "responses", "ranking", "message"),
    [
        ("self_instruct", "dataset", "ranker", "for which a data set has no responses"),
        ("pool", "generated", "dataset", "which a data set has not rated"),
        ("self_instruct", "generated", "ranker", "needs data.self_instruct"),
        ("pol", "generated", "ranker", r"data\.prompts must be one of pool, self_instruct, got 'pol'"),
    ],
)
def test_impossible_recipes_are_refused(prompts: Any, responses: Any, ranking: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Recipe(NoSource(), prompts, responses, ranking, OFF)


def test_a_data_sets_responses_become_candidates(tokenizer: PreTrainedTokenizerFast) -> None:
    prompts = [Prompt(f"p{number}", (Message("user", "x"),), "pool") for number in range(3)]
    examples = [
        Example(prompts[0], ("one", "two"), (3.0, 4.0)), Example(prompts[1], ("one",), (1.0,)),
        Example(prompts[2], ("a", "b")),
    ]  # fmt: skip
    by_dataset, by_ranker = (Recipe(NoSource(), "pool", "dataset", who, OFF) for who in ("dataset", "ranker"))
    found, dropped = by_dataset.dataset_candidates(prompts, examples, tokenizer)
    assert repr(by_ranker.dataset_candidates(prompts, examples, tokenizer)) == repr((found, dropped))  # NaN != NaN
    assert dropped == {"fewer_than_two_responses": 1} and len(found) == 2
    assert found[0].scores == (3.0, 4.0) and all(map(math.isnan, found[1].scores))
    assert found[0].completions == tuple(completion_from_text(tokenizer, text) for text in ("one", "two"))
    assert all(text.finish == "stop" and text.token_ids[-1] == 1 for text in found[0].completions)
    pairs, lost = build_pairs(found, tokenizer, OFF)
    assert [pair.prompt_id for pair in pairs] == ["p0"] and reasons(lost) == {"unranked": 1}
    with pytest.raises(ValueError, match="prompt p2 is not in the source's pool of 2 examples"):
        by_dataset.dataset_candidates(prompts, examples[:2], tokenizer)
