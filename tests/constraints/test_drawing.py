"""The prompts: as many as promised, the same every time, nothing shared by the two sides of the split."""

from __future__ import annotations

import re
from dataclasses import fields

from aipo.constraints import draw_tasks
from aipo.constraints.drawing import HELD_OUT_KINDS, TRAINING_KINDS
from aipo.constraints.words import HELD_OUT, TRAINING


def test_the_two_sides_share_no_entry_and_no_content_word():
    both = [{entry for field in fields(side) for entry in getattr(side, field.name)} for side in (TRAINING, HELD_OUT)]
    assert both[0] & both[1] == set()
    singles = [
        {word.lower() for name in ("keywords", "avoided", "keys", "names", "objects") for word in getattr(side, name)}
        for side in (TRAINING, HELD_OUT)
    ]
    assert singles[0] & singles[1] == set()


def test_the_training_side_has_2000_different_prompts_and_none_of_the_benchmark():
    training, held_out = draw_tasks(2000, 0, held_out=False), draw_tasks(256, 0, held_out=True)
    assert len({task.text for task in training}) == 2000
    assert not {task.text for task in training} & {task.text for task in held_out}
    assert {found.kind for task in training for found in task.constraints} == set(TRAINING_KINDS)
    assert {found.kind for task in held_out for found in task.constraints} == {*TRAINING_KINDS, *HELD_OUT_KINDS}
    assert sum(task.has_new_kind for task in held_out) == 128
    assert not any(task.has_new_kind for task in training)
    assert draw_tasks(2000, 0, held_out=False) == training
    assert draw_tasks(50, 1, held_out=False) != training[:50]


def test_every_constraint_is_told_in_the_prompt_and_none_twice():
    for task in draw_tasks(1000, 3, held_out=False) + draw_tasks(300, 3, held_out=True):
        kinds = [found.kind for found in task.constraints]
        assert len(set(kinds)) == len(kinds) and 2 <= len(kinds) <= 4
        for found in task.constraints:
            told = found.words[:1] if found.kind == "fact" else found.words
            assert all(word in task.text for word in told), task
            assert not found.count or str(found.count) in task.text
        assert not re.search(r"[{}]", task.text)
