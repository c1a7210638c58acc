"""The texts behind a sweep's points: answers with their verdicts, and training prompts with their candidates.

They are kept apart from all else, in chunks that the page unpacks when somebody looks at them. A large sweep has more
texts than a page can hold: then every k-th question and prompt is kept, and of the replicates (seeds, base models) as
many as fit, every objective of each. Which texts these are depends on the artifacts alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aipo.jobs import Point
from aipo.records import Answer, Candidates, Chat, Completion, Message, Pair, RankedPrompt, read_jsonl, read_parquet
from analysis.collect import Run
from analysis.page.packing import pack
from analysis.page.sources import Shelf, questions
from analysis.page.views import SheetView, VerdictSource

if TYPE_CHECKING:
    import pyarrow as pa

TEXTS_PER_REPLICATE = 60_000
"""From how many texts on questions and prompts are sampled."""
PACKED_CHARACTERS = 10_000_000
"""Room for all chunks, as they stand in the page."""
LONGEST_TEXT = 100_000
"""In characters; the rest of a longer one is replaced by a note."""
LONGEST_REPLY = 600
"""Likewise of a judge's reply."""
CODES = {"right": "r", "true": "t", "wrong": "w", "filler": "f", "nonsense": "n", "repeated": "d", "blank": "-"}

WITH_TEXTS = ("scores", "answers", "pairs", "candidates")
"""Stages that hold the texts, or name the artifact that does."""

QUESTION = re.compile(rb'\{"question_id": "([^"\\]*)"')
"""How a judgment's line begins; an id with a character that JSON escapes is found by reading the line."""


@dataclass(frozen=True)
class Sample:
    """Which share of the texts is kept."""

    share: float
    """Of every benchmark's questions and every round's training prompts."""

    def of(self, items: Sequence[Any]) -> list[int]:
        """The places of those kept, evenly spread."""
        wanted = max(1, round(len(items) * min(1.0, self.share))) if items else 0
        return [position * len(items) // wanted for position in range(wanted)]


@dataclass
class Texts:
    """What the page holds: packed chunks, where each artifact lies, and the sheets of each (job, iteration)."""

    chunks: list[str] = field(default_factory=list)
    places: dict[str, int] = field(default_factory=dict)
    sheets: dict[tuple[str, int], tuple[SheetView, ...]] = field(default_factory=dict)
    question_ids: dict[str, list[str]] = field(default_factory=dict)
    """Benchmark -> the ids of the questions kept, in the order of every answers sheet."""
    n_questions: dict[str, int] = field(default_factory=dict)
    """Benchmark -> how many were answered."""

    @property
    def size(self) -> int:
        """Characters."""
        return sum(map(len, self.chunks))


def gather(replicates: Sequence[Sequence[Run]], shelf: Shelf) -> tuple[Texts, str]:
    """The texts of as many replicates as fit, and a sentence that says which those are."""
    runs = [run for replicate in replicates for run in replicate]
    if not runs:
        return Texts(), "The page holds no texts."
    share = min(1.0, TEXTS_PER_REPLICATE / max(1, max(_count(replicate, shelf) for replicate in replicates)))
    while True:
        texts, included = Texts(), 0
        for replicate in replicates:
            before = len(texts.chunks)
            for run in replicate:
                _add(texts, run, Sample(share), shelf)
            if texts.size > PACKED_CHARACTERS:
                if included:
                    _drop(texts, before, replicate)
                break
            included += 1
        if included or share < 1e-3:
            break
        share *= 0.8 * PACKED_CHARACTERS / texts.size
    return texts, _note(share, included, replicates, lacking=shelf.lacks(WITH_TEXTS))


def _note(share: float, included: int, replicates: Sequence[Sequence[Run]], *, lacking: bool) -> str:
    """`lacking`: some artifacts with texts cannot be read."""
    if share >= 1 and included == len(replicates):
        if lacking:
            return "The page holds what can be read of the answers and candidates of the sweep; some cannot."
        return "The page holds every answer and every candidate of the sweep."
    parts = []
    if share < 1:
        parts.append(f"of the questions and training prompts an evenly spread {100 * share:.2g} %")
    if included < len(replicates):
        parts.append(f"of {len(replicates)} seeds and base models the first {included}")
    where = "that can be read are in the store; some cannot" if lacking else "are in the store"
    return f"To stay small the page holds a sample of the texts: {', '.join(parts)}. All texts {where}."


def _drop(texts: Texts, n_chunks: int, replicate: Sequence[Run]) -> None:
    del texts.chunks[n_chunks:]
    texts.places = {digest: place for digest, place in texts.places.items() if place < n_chunks}
    dropped = {run.job for run in replicate}
    texts.sheets = {key: sheets for key, sheets in texts.sheets.items() if key[0] not in dropped}


def _count(replicate: Sequence[Run], shelf: Shelf) -> int:
    """About how many texts the replicate has, from the manifests alone."""
    total = 0
    for run in replicate:
        for point in run.points:
            parents = shelf.parents(run.store, "pairs", point.pairs)
            total += shelf.counts(run.store, "candidates", parents.get("candidates")).get("completions", 0)
            for score in point.scores:
                if not score.diagnostic:
                    parents = shelf.parents(run.store, "scores", score.fingerprint)
                    total += shelf.counts(run.store, "answers", parents.get("answers")).get("answers", 0)
    return total


def _add(texts: Texts, run: Run, sample: Sample, shelf: Shelf) -> None:
    """One more chunk: the texts of this job that none before it has."""
    asked = questions(run)
    marked = run.record.needs_world
    chunk: dict[str, Any] = {}

    def is_new(digest: str) -> bool:
        return digest not in texts.places and digest not in chunk

    for point in run.points:
        sheets = []
        for benchmark, sources in _sources(run, point, shelf).items():
            answers, verdicts = sources
            path = shelf.file(run.store, "answers", answers, "answers.parquet")
            if path is None:
                continue
            if benchmark not in texts.question_ids:
                (every,) = _columns(path, "question_id")
                texts.question_ids[benchmark] = [every[place] for place in sample.of(every)]
                texts.n_questions[benchmark] = len(every)
            ids = texts.question_ids[benchmark]
            if is_new(answers):
                rows = {row.question_id: row for row in read_parquet(path, Answer, _where("question_id", ids))}
                chunk[answers] = _answers(rows, ids, asked.get(benchmark, {}), marked)
            for verdict in verdicts:
                if is_new(verdict.scores):
                    chunk[verdict.scores] = _scores(run.store, verdict, ids, shelf)
            sheets.append(SheetView(benchmark, answers, tuple(verdicts)))
        if point.pairs is not None and is_new(point.pairs):
            if (prompts := _candidates(run.store, point.pairs, sample, marked, shelf)) is not None:
                chunk[point.pairs] = prompts
        texts.sheets[run.job, point.iteration] = tuple(sheets)
    if chunk:
        texts.places |= dict.fromkeys(chunk, len(texts.chunks))
        texts.chunks.append(pack(chunk))


def _sources(run: Run, point: Point, shelf: Shelf) -> dict[str, tuple[str, list[VerdictSource]]]:
    """Benchmark -> its answers and who judged them, the job's own judge first."""
    found: dict[str, tuple[str, list[VerdictSource]]] = {}
    for score in sorted(point.scores, key=lambda score: (score.benchmark, score.diagnostic, score.judge)):
        parents = shelf.parents(run.store, "scores", score.fingerprint)
        if "answers" not in parents:
            continue
        _, verdicts = found.setdefault(score.benchmark, (parents["answers"], []))
        source = VerdictSource(score.judge, score.diagnostic, score.fingerprint, parents.get("judgments"))
        verdicts.append(source)
    return found


def _answers(
    rows: Mapping[str, Answer], ids: Sequence[str], asked: Mapping[str, tuple[str, ...]], marked: bool
) -> dict[str, Any]:
    """Columns, an entry per question kept and in it one per turn: text, tokens, cut at the limit, marks."""
    sheet: dict[str, list[Any]] = {"t": [], "n": [], "x": [], "m": []}
    for question_id in ids:
        turns = rows[question_id].turns if question_id in rows else ()
        sheet["t"].append([shortened(turn.text) for turn in turns])
        sheet["n"].append([turn.n_tokens for turn in turns])
        sheet["x"].append([int(turn.finish == "length") for turn in turns])
        said = asked.get(question_id, ())
        chat: Chat = ()
        marks = []
        for user, turn in zip(said, turns, strict=False):
            chat = (*chat, Message("user", user))
            marks.append(_marks(chat, turn) if marked else "")
            chat = (*chat, Message("assistant", turn.text))
        sheet["m"].append(marks)
    return sheet


def _scores(store: Path, source: VerdictSource, ids: Sequence[str], shelf: Shelf) -> dict[str, Any]:
    """Per question kept: what it contributes to the score, and the judge's verdicts [turn, order, value, reply]."""
    values: dict[str, float | None] = {}
    path = shelf.file(store, "scores", source.scores, "questions.parquet")
    if path is not None:
        values = dict(zip(*_columns(path, "question_id", "value"), strict=True))
    verdicts: dict[str, list[list[Any]]] = {}
    path = shelf.file(store, "judgments", source.judgments, "judgments.jsonl")
    kept = set(ids)

    def wanted(line: bytes) -> bool:
        named = QUESTION.match(line)
        return named is None or named[1].decode() in kept

    for row in read_jsonl(path, wanted) if path is not None else ():
        if row.get("question_id") in kept:
            replies = [reply.get("text") or reply.get("error") or "" for reply in row["replies"]]
            reply = shortened("\n".join(replies), LONGEST_REPLY)
            value = row["value"] if row["value"] is None else round(row["value"], 4)
            verdicts.setdefault(row["question_id"], []).append([row["turn"], row["order"], value, reply])
    return {
        "v": [None if (value := values.get(name)) is None else round(value, 4) for name in ids],
        "j": [verdicts.get(name, []) for name in ids] if verdicts else [],
    }


def _candidates(store: Path, pairs: str, sample: Sample, marked: bool, shelf: Shelf) -> list[dict[str, Any]] | None:
    """A row per training prompt kept: its chat, candidates [text, tokens, cut, score, marks], chosen and rejected."""
    parents = shelf.parents(store, "pairs", pairs)
    path = shelf.file(store, "candidates", parents.get("candidates"), "candidates.parquet")
    pairs_path = shelf.file(store, "pairs", pairs, "pairs.parquet")
    if path is None or pairs_path is None:
        return None
    drawn = read_parquet(path, Candidates, lambda table: sample.of(range(table.num_rows)))
    of_those = _where("prompt_id", [row.prompt.prompt_id for row in drawn])
    ranking = shelf.file(store, "ranking", parents.get("ranking"), "ranking.parquet")
    scores = {row.prompt_id: row.scores for row in read_parquet(ranking, RankedPrompt, of_those)} if ranking else {}
    chosen = {pair.prompt_id: pair for pair in read_parquet(pairs_path, Pair, of_those)}
    return [_prompt(row, scores, chosen, marked) for row in drawn]


def _columns(path: Path, *names: str) -> list[list[Any]]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        table = file.read(columns=list(names), use_threads=False)
    if not len(table):  # a file of no records has no columns either
        return [[] for _ in names]
    return [table[name].to_pylist() for name in names]


def _where(column: str, wanted: Sequence[str]) -> Callable[[pa.Table], list[int]]:
    """For `read_parquet`: the rows whose `column` holds one of these values."""
    kept = set(wanted)
    return lambda table: [place for place, value in enumerate(table[column].to_pylist()) if value in kept]


def _prompt(
    row: Candidates, scores: Mapping[str, Sequence[float]], pairs: Mapping[str, Pair], marked: bool
) -> dict[str, Any]:
    chat, own = row.prompt.chat, scores.get(row.prompt.prompt_id, row.scores or ())
    candidates = []
    asked = 0
    for place, completion in enumerate(row.completions):
        marks = ""
        if marked:
            asked, marks = _read(chat, completion)
        score = round(own[place], 4) if place < len(own) else None
        cut = int(completion.finish == "length")
        candidates.append([shortened(completion.text), completion.n_tokens, cut, score, marks])
    pair = pairs.get(row.prompt.prompt_id)
    sides = [_place(row.completions, side) for side in (pair.chosen, pair.rejected)] if pair else [None, None]
    shown = [[message.role, shortened(message.content)] for message in chat]
    prompt = {"i": row.prompt.prompt_id, "s": row.prompt.source, "p": shown, "a": asked}
    return prompt | {"c": candidates, "w": sides[0], "l": sides[1]}


def _place(completions: Sequence[Completion], side: Completion) -> int | None:
    return next((place for place, one in enumerate(completions) if one.token_ids == side.token_ids), None)


def _marks(chat: Chat, completion: Completion) -> str:
    return _read(chat, completion)[1]


def _read(chat: Chat, completion: Completion) -> tuple[int, str]:
    """How many facts the chat asks for, and a letter per sentence of the completion."""
    from aipo.miniature.gold import mark_sentences

    if not chat or chat[-1].role != "user":
        return 0, ""
    asked, marks = mark_sentences(chat, completion.text)
    return asked, "".join(CODES[mark] for mark in marks)


def shortened(text: str, longest: int = LONGEST_TEXT) -> str:
    """The text, or its beginning and how much is left out."""
    return text if len(text) <= longest else f"{text[:longest]} … [{len(text) - longest} more characters]"
