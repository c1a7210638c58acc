"""Every check on texts made by hand: what passes, what fails, and what is close."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from written_texts import padded, shortened, write

from aipo.constraints import Constraint, checks, constraints_of, draw_tasks, meta_of, share_met
from aipo.constraints.constraint import CHECKS

C = Constraint
BY_HAND = [
    (C("sentences", count=2), ["One. Two.", "Is it? Yes!", 'He said "no." Then he left', "It costs 3.5 pounds. Cheap."],
     ["One.", "One. Two. Three.", "One, two"]),
    (C("sentences", count=1), ["Wait...", "no mark at all", "What?!"], ["A. B.", "... !"]),
    (C("use", ("river", "lamp")), ["A river and a lamp.", "LAMPS by the Riverside"], ["A river.", "a lamb, a river"]),
    (C("avoid", ("very",)), ["An every day thing.", "fine"], ["Very fine.", "It is VERY, very fine"]),
    (C("opening", ("To begin with",)), ["To begin with, a word.", ' "to begin with" it is', "TO BEGIN WITH"],
     ["Well, to begin with", "To begin without", "To begin"]),
    (C("ending", ("The end.",)), ["So it is. The end.", 'It was. the END."', " The end. \n"],
     ["The end", "The end. No."]),
    (C("bullets", count=2), ["* a\n* b", "Here:\n- a\n - b\nThat is it.", "* a\n- b"],
     ["* a", "* a\n* b\n* c", "** a **\n* b", "1. a\n2. b"]),
    (C("json", ("tip", "mood")), ['{"tip": "x", "mood": 1}', '```json\n{"mood": "a", "tip": ["b"]}\n```'],
     ['{"tip": "x"}', '{"tip": "x", "mood": "y", "z": 1}',
      'Here: {"tip": 1, "mood": 2}', "[1]", '{"tip": "", "mood": 1}',
      "{'tip': 1, 'mood': 2}", "[" * 100_000]),
    (C("lower"), ["all small, 3 of them", "é"], ["One capital", "123"]),
    (C("upper"), ["ALL CAPITAL, 3 OF THEM"], ["ALMOSt", "123"]),
    (C("quoted"), ['"A text."', ' "A" and "B" '], ['"A text".', "'A text'", '"', "A"]),
    (C("fact", ("seven", "7"), ("four", "4")), ["Seven.", "She has 7 boats", "It is seven, not 14"],
     ["Four.", "seven of them and four of those", "seventeen", "77", "none"]),
    (C("numbered", count=3), ["1. a\n2. b\n3. c", "List:\n 1) a\n 2) b\n 3) c\nDone."],
     ["1. a\n2. b", "1. a\n3. b\n2. c", "1. a 2. b 3. c", "1. a\n2. b\n3. c\n4. d",
      "* a\n* b\n* c", "9" * 5000 + ". a"]),
    (C("paragraphs", count=2), ["one\n***\ntwo", "one *** two", "***\none\n***\ntwo"],
     ["one\n\ntwo", "one\n***\n***\ntwo", "one\n***\ntwo\n***\nthree", "one"]),
    (C("no_comma"), ["none here; none"], ["one, here"]),
    (C("title"), ["<<A title>>\ntext", "text <<t>>"], ["<A title>", "<< >>", "<<broken\ntitle>>", "Title"]),
    (C("postscript"), ["text\nP.S. more", "p. s. more", "P.S."], ["PS more", "P.S", "text"]),
]  # fmt: skip


@pytest.mark.parametrize(("asked", "good", "bad"), BY_HAND, ids=[asked.kind for asked, _, _ in BY_HAND])
def test_texts_made_by_hand(asked: Constraint, good: list[str], bad: list[str]):
    assert [text for text in good if not asked.is_met(text)] == []
    assert [text for text in bad if asked.is_met(text)] == []


def test_every_kind_has_texts_made_by_hand():
    assert {asked.kind for asked, _, _ in BY_HAND} == set(CHECKS)


@pytest.mark.parametrize("asked", [asked for asked, _, _ in BY_HAND], ids=lambda asked: asked.kind)
def test_a_blank_text_does_nothing(asked: Constraint):
    assert not asked.is_met("") and not asked.is_met(" \n\t")


@settings(deadline=None)
@given(st.text(max_size=300))
def test_any_text_has_a_verdict_of_every_kind(text: str):
    for asked, _, _ in BY_HAND:
        assert asked.is_met(text) in (True, False)


@settings(deadline=None)
@given(st.lists(st.sampled_from([asked for asked, _, _ in BY_HAND]), min_size=1, max_size=5), st.text(max_size=100))
def test_gold_is_the_share_met_and_survives_the_way_through_json(asked: list[Constraint], text: str):
    share = share_met(asked, text)
    assert share == sum(found.is_met(text) for found in asked) / len(asked)
    assert 0 <= share <= 1
    assert constraints_of(meta_of(asked)) == tuple(asked)


@settings(deadline=None)
@given(st.lists(st.text("ab c,", min_size=1, max_size=20).filter(str.strip).map(lambda s: s + "x"), min_size=1))
def test_sentences_are_counted_as_they_were_put_together(parts: list[str]):
    assert checks.count_sentences(". ".join(parts) + "!") == len(parts)


@pytest.mark.parametrize(
    "meta",
    ["", "{}", "[]", "[1]", '[{"kind": "none"}]', '[{"kind": "use"}]', '[{"kind": "use", "words": "river"}]',
     '[{"kind": "sentences", "count": "2"}]', '[{"kind": "sentences"}]', '[{"kind": "lower", "count": 1}]',
     '[{"kind": "lower", "more": 1}]', "[" * 100_000, '[{"kind": ["use"]}]',
     '[{"kind": "use", "words": [1]}]', '[{"kind": "fact", "words": ["a"], "rejected": [2]}]'],
)  # fmt: skip
def test_constraints_that_nobody_wrote_are_refused(meta: str):
    with pytest.raises(ValueError, match="constraint"):
        constraints_of(meta)


def test_gold_does_not_change_with_filler_or_without_it_on_10000_texts():
    rng = random.Random(0)
    tasks = draw_tasks(600, 1, held_out=False) + draw_tasks(400, 1, held_out=True)
    golds, lengths, changed = [], [], 0
    for number in range(10_000):
        asked = tasks[number % len(tasks)].constraints
        text = write(rng, asked, omitted=0.3)
        longer = padded(rng, text, places=rng.randint(1, 6))
        gold = share_met(asked, text)
        assert share_met(asked, longer) == gold == share_met(asked, shortened(longer)), (asked, text, longer)
        changed += longer != text
        golds.append(gold)
        lengths.append(len(longer.split()))
    assert changed > 9_900
    assert max(lengths) > 4 * min(lengths)
    assert 0.6 < sum(golds) / len(golds) < 0.95  # 30 % of the constraints were left out, and some are met by chance


def test_the_writer_meets_everything_it_heeds():
    rng = random.Random(1)
    for task in draw_tasks(1500, 2, held_out=False) + draw_tasks(500, 2, held_out=True):
        text = write(rng, task.constraints, omitted=0.0)
        assert share_met(task.constraints, text) == 1, (task, text)
