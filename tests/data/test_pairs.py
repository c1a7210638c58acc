"""Pairs: best against worst, and every prompt that gives none counted under its reason."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from aipo.data.pairs import REASONS, BuiltPairs, NoPairs, PairFilters, build_pairs, require_pairs
from aipo.data.recipe import Recipe
from aipo.models.tokens import completion_from_text
from aipo.records import Candidates, Completion, Example, Message, Prompt

OFF = PairFilters(max_prompt_tokens=None, max_completion_tokens=None, truncated="keep", drop_url_in_chosen=False)
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
    built = build_pairs(candidates, tokenizer, OFF)
    assert reasons(built.dropped) == {} and built.share_dropped == 0
    assert built.lengths() == {"chosen_tokens": 1.0, "rejected_tokens": 1.0}
    first, second = built.pairs
    assert (first.chosen.text, first.rejected.text) == ("c", "b")
    assert (first.chosen_score, first.rejected_score, first.win_probability) == (2.0, -1.0, None)
    assert (first.pair_id, first.prompt_id) == ("p0/2-1", "p0") and len(first.prompt_token_ids) == 18
    assert (second.chosen.text, second.rejected.text) == ("f", "e")


def test_of_equal_scores_the_first_counts(tokenizer: PreTrainedTokenizerFast) -> None:
    (pair,) = build_pairs([row("a", "b", "c", "d", scores=(1.0, 2.0, 2.0, 1.0))], tokenizer, OFF).pairs
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
        (cut("stop", "length"), {"truncated": "drop"}, "truncated"),
        (cut("length", "stop"), {"truncated": "drop"}, "truncated"),
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
    built = build_pairs([candidates, fine], tokenizer, replace(OFF, **filters))
    pairs = built.pairs
    assert reasons(built.dropped) == ({reason: 1} if reason else {})
    assert len(pairs) == (1 if reason else 2) and pairs[-1].prompt_id == "p9"


def test_short_prompts_are_counted_without_their_template(tokenizer: PreTrainedTokenizerFast) -> None:
    rows = [row("a", "b", prompt="x" * length, number=length) for length in (2, 3)]
    built = build_pairs(rows, tokenizer, replace(OFF, min_prompt_tokens=3))
    assert [pair.prompt_id for pair in built.pairs] == ["p3"] and reasons(built.dropped) == {"prompt_too_short": 1}


def test_the_first_reason_that_applies_counts(tokenizer: PreTrainedTokenizerFast) -> None:
    strict = PairFilters(max_prompt_tokens=1, max_completion_tokens=1, truncated="drop", drop_url_in_chosen=True)
    url = "https://a.b"
    both = replace(row("a", url), completions=(completion(""), completion(url, "length")))
    candidates = [row(url, url, scores=(0.0, 0.0)), row(url, url), both, row("a", url)]
    assert reasons(build_pairs(candidates, tokenizer, strict).dropped) == {
        "tie": 1, "identical": 1, "empty": 1, "prompt_too_long": 1
    }  # fmt: skip


def test_the_end_of_turn_is_no_length(tokenizer: PreTrainedTokenizerFast) -> None:
    unfinished = Completion("abc", (5, 6, 7), "length")
    assert unfinished.n_tokens == completion_from_text(tokenizer, "abc").n_tokens == 3
    candidates = replace(row("a", "b"), completions=(completion_from_text(tokenizer, "a"), unfinished))
    assert len(build_pairs([candidates], tokenizer, replace(OFF, max_completion_tokens=3)).pairs) == 1


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


def test_nothing_left_says_where_it_went(tokenizer: PreTrainedTokenizerFast) -> None:
    built = build_pairs([row("a", "a"), row("b", "b"), row("a")], tokenizer, OFF)
    with pytest.raises(NoPairs, match=r"no pair is left to train on; dropped: unranked 1, identical 2\. Loosen"):
        require_pairs(built)
    with pytest.raises(NoPairs, match="there was no prompt"):
        require_pairs(BuiltPairs())
    require_pairs(build_pairs([row("a", "b")], tokenizer, OFF))


def finished(*finishes: str, scores: tuple[float, ...]) -> Candidates:
    """Candidates a, bb, ccc, ... of which some were cut."""
    texts = [letter * (place + 1) for place, letter in enumerate("abcdef"[: len(finishes)])]
    made = tuple(completion(text, finish) for text, finish in zip(texts, finishes, strict=True))
    return replace(row(*texts), completions=made, scores=scores)


@pytest.mark.parametrize(
    ("finishes", "scores", "expected"),
    [
        (("stop", "length", "stop"), (1.0, 2.0, 0.0), ("a", "ccc")),  # the cut one is the best: it may not win
        (("stop", "length", "stop"), (1.0, 0.0, 0.5), ("a", "bb")),  # the worst: it may lose
        (("stop", "length", "length"), (0.0, 1.0, 2.0), "truncated"),  # nothing below the only finished one
        (("length", "length"), (0.0, 1.0), "truncated"),
        (("stop", "length"), (1.0, 1.0), "tie"),
    ],
)
def test_cut_completions_may_lose_but_not_win(
    tokenizer: PreTrainedTokenizerFast, finishes: Any, scores: Any, expected: Any
) -> None:
    built = build_pairs([finished(*finishes, scores=scores)], tokenizer, replace(OFF, truncated="rejected_only"))
    if isinstance(expected, str):
        assert not built.pairs and reasons(built.dropped) == {expected: 1}
    else:
        assert [(pair.chosen.text, pair.rejected.text) for pair in built.pairs] == [expected]


def test_many_drops_are_told_with_their_lengths_and_remedy(
    tokenizer: PreTrainedTokenizerFast, caplog: pytest.LogCaptureFixture
) -> None:
    drop = replace(OFF, truncated="drop")
    cut_rows = [finished("stop", "stop", "length", scores=(0.0, 1.0, 2.0))] * 2
    kept = [row("a", "bb", number=9)] * 8
    with caplog.at_level("WARNING", logger="aipo"):
        built = build_pairs([*cut_rows, *kept], tokenizer, drop)
    assert built.lengths() == {
        "chosen_tokens": 2.0, "rejected_tokens": 1.0, "dropped_chosen_tokens": 3.0, "dropped_rejected_tokens": 1.0
    }  # fmt: skip
    (message,) = caplog.messages
    assert message == (
        "pairs: 2 of 10 prompts dropped (truncated 2); the dropped pairs' sides have 3.0 and 1.0 tokens on "
        "average, the kept ones' 2.0 and 1.0. To keep more: raise iteration.decoding.max_new_tokens, and "
        "data.filters.max_completion_tokens with it, or let cut completions lose (data.filters.truncated=rejected_only)"
    )
    caplog.clear()
    with caplog.at_level("WARNING", logger="aipo"):
        build_pairs([cut_rows[0], *kept, kept[0]], tokenizer, drop)  # one in ten is not more than a tenth
    assert not caplog.messages


def test_the_remedy_is_not_what_is_set_already(
    tokenizer: PreTrainedTokenizerFast, caplog: pytest.LogCaptureFixture
) -> None:
    all_cut = finished("length", "length", scores=(0.0, 1.0))
    with caplog.at_level("WARNING", logger="aipo"):
        build_pairs([all_cut], tokenizer, replace(OFF, truncated="rejected_only"))
    (message,) = caplog.messages
    assert message.startswith("pairs: 1 of 1 prompts dropped (truncated 1)")
    assert "max_new_tokens" in message and "rejected_only" not in message


def test_the_treatment_of_cut_completions_is_one_of_three() -> None:
    with pytest.raises(ValueError, match="truncated must be one of drop, rejected_only, keep, got 'no'"):
        replace(OFF, truncated="no")


@pytest.mark.parametrize("name", ["max_prompt_tokens", "max_completion_tokens"])
def test_limits_are_positive(name: str) -> None:
    with pytest.raises(ValueError, match=f"PairFilters.{name} must be at least 1, or null for no limit, got 0"):
        replace(OFF, **{name: 0})


texts = st.lists(st.sampled_from(["a", "b", "bb", "", " ", "https://x.y", "long long text"]), min_size=1, max_size=4)


@given(st.lists(st.tuples(texts, st.integers(0, 10**6), st.text("xyz", max_size=6)), max_size=6), st.booleans())
def test_every_prompt_is_a_pair_or_a_drop(
    tokenizer: PreTrainedTokenizerFast, drawn: list[tuple[list[str], int, str]], strict: bool
) -> None:
    filters = PairFilters(20, 5, "drop", True) if strict else OFF
    candidates = [
        row(
            *words,
            scores=tuple(float(seed // 7**place % 3) for place in range(len(words))),
            prompt=asked,
            number=number,
        )
        for number, (words, seed, asked) in enumerate(drawn)
    ]
    built = build_pairs(candidates, tokenizer, filters)
    pairs = built.pairs
    assert len(pairs) + sum(built.dropped.values()) == len(candidates)
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
    built = build_pairs(found, tokenizer, OFF)
    assert [pair.prompt_id for pair in built.pairs] == ["p0"] and reasons(built.dropped) == {"unranked": 1}
    with pytest.raises(ValueError, match="prompt p2 is not in the source's pool of 2 examples"):
        by_dataset.dataset_candidates(prompts, examples[:2], tokenizer)
