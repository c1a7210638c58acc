"""The world: facts, prompts, and reading both back."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from aipo.miniature.benchmark_assets import (
    MiniatureAlpacaEval,
    MiniatureArenaHard,
    MiniatureMTBench,
    held_out_questions,
)
from aipo.miniature.corpus import Corpus, Writer
from aipo.miniature.gold import gold_quality
from aipo.miniature.source import MiniatureSource
from aipo.miniature.world import (
    ATTRIBUTES,
    FILLERS,
    PEOPLE,
    PHRASINGS,
    Fact,
    Request,
    count_words,
    draw_follow_up,
    draw_prompt,
    draw_request,
    holds,
    phrase,
    read_request,
    read_statement,
    split_words,
    state,
    true_fact,
)
from aipo.records import Message


def test_size_and_balance():
    assert len(set(PEOPLE)) == 32
    assert len(ATTRIBUTES) == 6
    values = [value for group in ATTRIBUTES.values() for value in group]
    assert len(set(values)) == 48, "a value belongs to one attribute, so that prompts and statements are unambiguous"
    assert not set(values) & {*PEOPLE, *ATTRIBUTES}
    for attribute, group in ATTRIBUTES.items():
        owners = Counter(true_fact(person, attribute).value for person in PEOPLE)
        assert owners == {value: 4 for value in group}


def test_some_facts_never_change():
    # The truth is part of the published numbers: a change of it must be seen.
    assert [true_fact("miller", attribute).value for attribute in ATTRIBUTES] == [
        "hen",
        "desert",
        "rice",
        "blue",
        "guitar",
        "juice",
    ]


def test_statements_are_read_back():
    for long_form in (False, True):
        for person in PEOPLE:
            for attribute, values in ATTRIBUTES.items():
                for value in values:
                    fact = Fact(person, attribute, value)
                    assert read_statement(state(fact, long_form=long_form)) == fact
                    assert holds(fact) == (true_fact(person, attribute) == fact)
    assert all(read_statement(filler) is None for filler in FILLERS)
    assert read_statement("The miller keeps a piano.") is None


@pytest.mark.parametrize("phrasing", PHRASINGS)
def test_prompts_are_read_back(phrasing):
    rng = random.Random(phrasing)
    for _ in range(50):
        request = draw_request(rng, held_out=False)
        assert read_request([phrase(request, phrasing)]) == request


def test_phrases_by_hand():
    request = Request(("miller", "poet"), ("pet", "home"))
    assert phrase(request, PHRASINGS[0]) == "What are the pet and the home of the miller and the poet?"
    assert phrase(Request(("miller",), ("pet",)), PHRASINGS[0]) == "What is the pet of the miller?"
    three = Request(("miller",), ("pet", "home", "food"))
    assert phrase(three, PHRASINGS[5]) == "Describe the miller by the pet, the home and the food."


def test_follow_ups_lean_on_the_turn_before():
    first = "What are the pet and the home of the miller?"
    assert read_request([first, "And the food?"]) == Request(("miller",), ("food",))
    assert read_request([first, "What about the poet?"]) == Request(("poet",), ("pet", "home"))
    assert read_request([first, "And the food?", "And the poet?"]) == Request(("poet",), ("food",))
    rng = random.Random(1)
    for _ in range(200):
        request, text = draw_prompt(rng, held_out=False)
        follow_up, second = draw_follow_up(rng, request)
        assert read_request([text, second]) == follow_up


def test_difficulties_and_phrasings_are_all_drawn():
    rng = random.Random(2)
    drawn = [draw_prompt(rng, held_out=False) for _ in range(2000)]
    shares = Counter(request.n_facts for request, _ in drawn)
    assert set(shares) == {1, 2, 3, 4}
    assert min(shares.values()) > 300
    assert {len(request.people) for request, _ in drawn} == {1, 2}


def test_self_instruct_normalisation_changes_nothing():
    rng = random.Random(3)
    for _ in range(200):
        _, text = draw_prompt(rng, held_out=False)
        assert text[0].upper() + text[1:].lower() == text


def test_split_words_is_lossless():
    text = "The miller keeps a cat.\n\n2. What is  the pet , of the miller?"
    assert "".join(split_words(text)) == text
    assert count_words("The miller keeps a cat.") == 6


def test_held_out_split():
    assert (
        Request(("miller", "poet"), ("pet", "home")).held_out == Request(("poet", "miller"), ("home", "pet")).held_out
    )
    rng = random.Random(4)
    for held_out in (False, True):
        assert all(draw_request(rng, held_out=held_out).held_out == held_out for _ in range(100))


def test_benchmarks_share_no_question_with_the_pool_or_each_other():
    source = MiniatureSource(n_prompts=1500, rating_length_bias_per_token=0, rating_noise_sd=0, seed=0)
    pool = [example.prompt.chat[0].content for example in source.load()[0]]
    asked = {read_request([text]) for text in pool}
    questions = {
        "gold": [text for _, text in held_out_questions("gold", 100, 0)],
        "mt": [row["turns"][0] for row in MiniatureMTBench(100, 0).load().questions],
        "alpaca": [row["instruction"] for row in MiniatureAlpacaEval(100, 0).load().items],
        "arena": [row["turns"][0]["content"] for row in MiniatureArenaHard(100, 0).load().questions],
    }
    everything = [text for texts in questions.values() for text in texts]
    assert len(set(everything)) == 400
    assert not set(everything) & set(pool)
    keys = {(frozenset(request.people), frozenset(request.attributes)) for request in asked}
    assert all(
        (frozenset(request.people), frozenset(request.attributes)) not in keys
        for request in (read_request([text]) for text in everything)
    )


def test_mini_mt_bench_has_the_official_shape():
    assets = MiniatureMTBench(n_questions=80, seed=0).load()
    categories = Counter(row["category"] for row in assets.questions)
    assert len(categories) == 8 and set(categories.values()) == {10}
    assert len(assets.references) == 30
    row = next(row for row in assets.questions if str(row["question_id"]) in assets.references)
    chat = (Message("user", row["turns"][0]),)
    first, second = assets.references[str(row["question_id"])]
    assert gold_quality(chat, first) == 1
    assert gold_quality((*chat, Message("assistant", first), Message("user", row["turns"][1])), second) == 1
    longer = MiniatureMTBench(n_questions=90, seed=0).load()
    assert longer.questions[:80] == assets.questions


def test_too_many_questions_are_refused():
    with pytest.raises(ValueError, match=r"1\.\.500, got 501"):
        MiniatureArenaHard(n_questions=501, seed=0)


def test_corpus_has_the_asked_mixture():
    writer = Writer(omitted=0.25, wrong=0.25, filler=0.35, unasked=0.15)
    corpus = Corpus(n_documents=3000, two_turn_share=0.25, task_list_share=0.1, writer=writer, seed=1)
    documents = list(corpus.documents())
    assert documents == list(corpus.documents()), "a corpus is a function of its seed"
    lists = [document for document in documents if isinstance(document, str)]
    chats = [document for document in documents if not isinstance(document, str)]
    assert len(lists) / 3000 == pytest.approx(0.1, abs=0.02)
    assert sum(len(chat) == 4 for chat in chats) / 3000 == pytest.approx(0.25, abs=0.03)
    assert all(text.startswith("Come up with a series of tasks:\n1. ") and "\n10. " in text for text in lists)
    assert not any(read_request([chat[0].content]).held_out for chat in chats)
    stated = right = asked = 0
    for chat in chats:
        request = read_request([chat[0].content])
        sentences = [sentence + "." for sentence in chat[1].content.rstrip(".").split(". ")]
        facts = [fact for fact in map(read_statement, sentences) if fact and fact.attribute in request.attributes]
        asked += request.n_facts
        stated += len(facts)
        right += sum(map(holds, facts))
    assert stated / asked == pytest.approx(0.75, abs=0.02)
    assert right / stated == pytest.approx(0.75, abs=0.02)


def test_writer_extremes():
    rng = random.Random(0)
    request = Request(("miller",), ("pet", "home"))
    perfect = Writer(omitted=0, wrong=0, filler=0, unasked=0, long_form=0)
    assert perfect.write(rng, request) == " ".join(state(fact) for fact in request.facts())
    silent = Writer(omitted=1, wrong=0, filler=0, unasked=0)
    assert silent.write(rng, request) in FILLERS
    with pytest.raises(ValueError, match="Writer.wrong must be a probability"):
        Writer(wrong=1.5)


def test_source_is_seeded_rated_and_mixed():
    source = MiniatureSource(n_prompts=300, rating_length_bias_per_token=0.0, rating_noise_sd=0.0, seed=5)
    examples, dropped = source.load()
    assert (examples, dropped) == source.load()
    assert len({example.prompt.prompt_id for example in examples}) == 300
    assert len({example.prompt.chat[0].content for example in examples}) == 300
    means = [
        sum(gold_quality(example.prompt.chat, example.responses[origin]) for example in examples) / 300
        for origin in range(4)
    ]
    assert means[0] > means[1] > means[2] > means[3]
    for example in examples:
        for response, rating in zip(example.responses, example.ratings, strict=True):
            assert rating == pytest.approx(5.5 + 4.5 * gold_quality(example.prompt.chat, response), abs=0.051)
    other, _ = MiniatureSource(300, 0.0, 0.0, seed=6).load()
    assert other != examples
