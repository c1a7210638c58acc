"""Texts written to meet, or to miss, given constraints; and filler that must change no verdict."""

from __future__ import annotations

import json
import random
import re

from aipo.constraints.constraint import Constraint

FILLER = ("perhaps", "indeed", "rather", "quietly", "somehow", "nevertheless", "again", "gently", "altogether")
"""Words that no list of `aipo.constraints.words` has."""
CLAUSES = ("the day goes on", "a door stands open", "we walk on slowly", "nobody says a word", "it rains a little")


def write(rng: random.Random, constraints: tuple[Constraint, ...], *, omitted: float) -> str:
    """An answer that meets each constraint, or with probability `omitted` takes no heed of it."""
    by_kind = {found.kind: found for found in constraints if rng.random() >= omitted}
    must_use = list(by_kind["use"].words) if "use" in by_kind else []
    if "fact" in by_kind:
        must_use.append(by_kind["fact"].words[0])
    must_use += [found.words[0] for found in constraints if found.kind == "avoid" and found.kind not in by_kind]

    def clause() -> str:
        return f"{rng.choice(CLAUSES)} {must_use.pop()}" if must_use else rng.choice(CLAUSES)

    if "json" in by_kind:
        keys = by_kind["json"].words
        values = [clause() for _ in keys]
        values[0] = " ".join([values[0], *must_use])
        return json.dumps(dict(zip(keys, values, strict=True)))
    comma = "" if "no_comma" in by_kind else ", "
    if "bullets" in by_kind:
        body = "\n".join(f"* {clause()} {clause()}." for _ in range(by_kind["bullets"].count))
    elif "numbered" in by_kind:
        body = "\n".join(f"{place + 1}. {clause()} {clause()}." for place in range(by_kind["numbered"].count))
    elif "paragraphs" in by_kind:
        body = "\n***\n".join(f"{clause()} {clause()}." for _ in range(by_kind["paragraphs"].count))
    else:
        n = by_kind["sentences"].count if "sentences" in by_kind else rng.randint(2, 4)
        body = " ".join(f"{clause()}{comma or ' '}{clause()}.".capitalize() for _ in range(n))
    if must_use:  # more words than places
        body = body[:-1] + " " + " ".join(must_use) + "."
    if "opening" in by_kind:
        body = f"{by_kind['opening'].words[0]} {body[0].lower()}{body[1:]}"
    if "title" in by_kind:
        body = f"<<a plain title>>\n{body}"
    if "postscript" in by_kind:
        body = f"{body}\nP.S. {clause()}."
    if "ending" in by_kind:
        body = f"{body} {by_kind['ending'].words[0]}"
    if "lower" in by_kind:
        body = body.lower()
    if "upper" in by_kind:
        body = body.upper()
    return f'"{body}"' if "quoted" in by_kind else body


def padded(rng: random.Random, text: str, places: int) -> str:
    """The text with filler inside its clauses: up to `places` runs of filler words, cased as the text is."""
    for _ in range(places):
        gaps = [found.start() for clause in CLAUSES for found in re.finditer(re.escape(clause), text, re.IGNORECASE)]
        if not gaps:
            return text
        at = text.index(" ", rng.choice(gaps))
        run = " " + " ".join(rng.choice(FILLER) for _ in range(rng.randint(1, 8)))
        text = text[:at] + (run.upper() if text.isupper() else run) + text[at:]
    return text


def shortened(text: str) -> str:
    """The text without its filler words."""
    words = "|".join(FILLER)
    return re.sub(rf" (?:{words})\b", "", text, flags=re.IGNORECASE)
