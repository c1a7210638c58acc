"""Where IFEval defines the same constraint, our verdict is its code's (wheel if-verifiable 0.1.2), on 3,000 texts.

The wheel's own requirements are wanted: pip install if-verifiable==0.1.2. It needs no NLTK data for these kinds.
"""

from __future__ import annotations

import random
from collections import Counter

import pytest
from written_texts import padded, write

from aipo.constraints import Constraint, draw_tasks

pytestmark = pytest.mark.slow
DISTURBANCES = (
    lambda text: text,
    lambda text: text.replace(" ", ", ", 1),
    lambda text: f"- {text}\n***",
    lambda text: f'"{text}"',
    lambda text: text.swapcase(),
    lambda text: f"<<{text[:20]}>>\n\n * {text}",
    lambda text: text + "\nP. S. more",
)


@pytest.fixture(scope="module")
def ifeval():
    try:
        from if_verifiable.ifeval import instructions
    except ImportError as error:
        pytest.skip(f"pip install if-verifiable==0.1.2 ({error})")
    return instructions


def _theirs(ifeval, asked: Constraint):
    """IFEval's checker of the same constraint, or None where it has none."""
    name, arguments = {
        "use": ("KeywordChecker", {"keywords": list(asked.words)}),
        "avoid": ("ForbiddenWords", {"forbidden_words": list(asked.words)}),
        "ending": ("EndChecker", {"end_phrase": asked.words[0] if asked.words else None}),
        "bullets": ("BulletListChecker", {"num_bullets": asked.count}),
        "quoted": ("QuotationChecker", {}),
        "no_comma": ("CommaChecker", {}),
        "title": ("TitleChecker", {}),
        "postscript": ("PostscriptChecker", {"postscript_marker": "P.S."}),
        "paragraphs": ("ParagraphChecker", {"num_paragraphs": asked.count}),
        "lower": ("LowercaseLettersEnglishChecker", {}),
        "upper": ("CapitalLettersEnglishChecker", {}),
    }.get(asked.kind, (None, {}))
    if name is None:
        return None
    checker = getattr(ifeval, name)(asked.kind)
    checker.build_description(**arguments)
    return checker


def test_verdicts_are_ifevals(ifeval, monkeypatch):
    monkeypatch.setattr(ifeval.langdetect, "detect", lambda text: "en")  # every text here is English
    rng = random.Random(5)
    tasks = draw_tasks(1500, 5, held_out=False) + draw_tasks(1500, 5, held_out=True)
    verdicts: Counter[tuple[str, bool]] = Counter()
    for task in tasks:
        text = rng.choice(DISTURBANCES)(padded(rng, write(rng, task.constraints, omitted=0.3), places=2))
        for asked in task.constraints:
            checker = _theirs(ifeval, asked)
            if checker is not None:
                ours = asked.is_met(text)
                assert ours == bool(checker.check_following(text)), (asked, text)
                verdicts[asked.kind, ours] += 1
    kinds = {kind for kind, _ in verdicts}
    assert len(kinds) == 11 and all(verdicts[kind, good] >= 10 for kind in kinds for good in (True, False)), verdicts
