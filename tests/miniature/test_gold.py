"""Gold quality by hand, and what must not move it."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aipo.miniature.gold import GoldCount, count_facts, gold_quality
from aipo.miniature.proxy import ProxyRanker
from aipo.miniature.world import ATTRIBUTES, FILLERS, Fact, Request, count_words, draw_prompt, phrase, state, true_fact
from aipo.records import Message

CHAT = (Message("user", "Tell me the pet and the home of the miller."),)
PET = state(true_fact("miller", "pet"))
HOME = state(true_fact("miller", "home"))
FOOD = state(true_fact("miller", "food"))
WRONG_PET = state(Fact("miller", "pet", next(v for v in ATTRIBUTES["pet"] if v != true_fact("miller", "pet").value)))


@pytest.mark.parametrize(
    ("completion", "expected"),
    [
        (f"{PET} {HOME}", 1.0),
        (PET, 0.5),
        (f"{PET} {PET}", 0.5),
        ("", 0.0),
        (FILLERS[0], 0.0),
        (f"{HOME} {FOOD}", 0.5),
        (WRONG_PET, -0.5),
        (f"{WRONG_PET} {WRONG_PET}", -0.5),
        (f"{WRONG_PET} {HOME}", 0.0),
        (f"{PET} {WRONG_PET} {HOME}", 0.5),
        (f"{PET} {HOME} The miller keeps", 0.5),
        ("Cat cat cat.\nMiller the. Of of?", -1.0),
        (f"{PET}\n{HOME}", 1.0),
    ],
)
def test_by_hand(completion, expected):
    assert gold_quality(CHAT, completion) == expected


def test_long_forms_count_as_the_same_fact():
    fact = true_fact("miller", "pet")
    assert count_facts(CHAT, f"{state(fact)} {state(fact, long_form=True)}") == GoldCount(2, 1, 0, 0)


def test_second_turn_is_judged_by_the_conversation():
    chat = (*CHAT, Message("assistant", WRONG_PET), Message("user", "And the food?"))
    assert gold_quality(chat, FOOD) == 1
    assert gold_quality(chat, PET) == 0
    chat = (*CHAT, Message("assistant", PET), Message("user", "What about the poet?"))
    assert gold_quality(chat, state(true_fact("poet", "pet"))) == 0.5


def test_a_prompt_that_asks_for_nothing():
    chat = (Message("user", "Thank you."),)
    assert gold_quality(chat, PET) == 0
    assert gold_quality(chat, WRONG_PET) == -1


def test_a_chat_that_waits_for_no_answer_is_refused():
    with pytest.raises(ValueError, match="ends with a user turn"):
        gold_quality((*CHAT, Message("assistant", PET)), PET)


sentences = st.lists(st.sampled_from([PET, HOME, FOOD, WRONG_PET, "Cat the of."]), max_size=6)


@settings(deadline=None)
@given(sentences=sentences, seed=st.integers(0, 1000), n_fillers=st.integers(0, 8))
def test_filler_and_order_are_free(sentences, seed, n_fillers):
    rng = random.Random(seed)
    padded = sentences + [rng.choice(FILLERS) for _ in range(n_fillers)]
    rng.shuffle(padded)
    assert gold_quality(CHAT, " ".join(padded)) == gold_quality(CHAT, " ".join(sentences))


@given(sentences=sentences)
def test_one_more_wrong_fact_never_helps_and_quality_is_bounded(sentences):
    before = gold_quality(CHAT, " ".join(sentences))
    after = gold_quality(CHAT, " ".join([*sentences, state(Fact("poet", "pet", _not("poet", "pet")))]))
    assert -1 <= after <= before <= 1
    if before > -0.5:
        raw = count_facts(CHAT, " ".join(sentences))
        assert after == before - 0.5 or raw.right - raw.wrong - raw.nonsense > 2


def _not(person: str, attribute: str) -> str:
    truth = true_fact(person, attribute).value
    return next(value for value in ATTRIBUTES[attribute] if value != truth)


def test_phrasing_does_not_matter():
    request = Request(("miller",), ("pet", "home"))
    from aipo.miniature.world import PHRASINGS

    assert {gold_quality((Message("user", phrase(request, wording)),), PET) for wording in PHRASINGS} == {0.5}


def test_proxy_without_noise_is_gold_plus_length():
    ranker = ProxyRanker(length_bias_per_token=0.005, noise_sd=0.0)
    padded = f"{PET} {' '.join(FILLERS[:3])}"
    gap = ranker.score(CHAT, padded) - ranker.score(CHAT, PET)
    assert gap == pytest.approx(0.005 * (count_words(padded) - count_words(PET)))
    assert gap == pytest.approx(0.005 * sum(count_words(" " + filler) for filler in FILLERS[:3]))
    assert ranker.score(CHAT, PET) == pytest.approx(0.5 + 0.005 * 6)


def test_proxy_noise_is_fixed_by_content_and_has_the_asked_spread():
    ranker = ProxyRanker(length_bias_per_token=0.0, noise_sd=0.15, seed=3)
    rng = random.Random(0)
    chats = [(Message("user", draw_prompt(rng, held_out=False)[1]),) for _ in range(3000)]
    one_batch = ranker.rank(chats, [[PET, HOME]] * len(chats))
    assert one_batch[17] == ranker.rank([chats[17]], [[PET, HOME]])[0]
    assert one_batch[17] == ranker.rank([chats[17]], [[HOME, PET]])[0][::-1]
    noise = [row[0] - gold_quality(chat, PET) for row, chat in zip(one_batch, chats, strict=True)]
    mean = sum(noise) / len(noise)
    sd = (sum((value - mean) ** 2 for value in noise) / len(noise)) ** 0.5
    assert mean == pytest.approx(0, abs=0.01)
    assert sd == pytest.approx(0.15, rel=0.05)
    assert ProxyRanker(0.0, 0.15, seed=4).score(CHAT, PET) != ranker.score(CHAT, PET)


def test_proxy_win_probabilities():
    ranker = ProxyRanker(length_bias_per_token=0.005, noise_sd=0.15)
    scores = ranker.rank([CHAT], [[PET, HOME]])[0]
    (forward,) = ranker.win_probabilities([CHAT], [(PET, HOME)])
    (backward,) = ranker.win_probabilities([CHAT], [(HOME, PET)])
    assert forward + backward == pytest.approx(1)
    assert (forward > 0.5) == (scores[0] > scores[1])
    certain = ProxyRanker(length_bias_per_token=0.0, noise_sd=0.0)
    assert certain.win_probabilities([CHAT] * 3, [(PET, WRONG_PET), (PET, HOME), (WRONG_PET, PET)]) == [1.0, 0.5, 0.0]
    # A gap of sqrt(2) sd is one sd of the difference of two noises: Phi(1).
    wide = ProxyRanker(length_bias_per_token=0.0, noise_sd=0.5 / 2**0.5)
    assert wide._win_probability(0.5) == pytest.approx(0.8413447, abs=1e-6)


def test_negative_noise_is_refused():
    with pytest.raises(ValueError, match="noise_sd must be at least 0, got -1"):
        ProxyRanker(length_bias_per_token=0, noise_sd=-1)
