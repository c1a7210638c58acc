"""Self-Instruct: the list it writes, what it reads back, and what it counts."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from composing import composed
from hypothesis import given
from hypothesis import strategies as st

from aipo.data.prompt_clusters import KMeansClusters, SentenceEmbedding, TfidfEmbedding
from aipo.data.self_instruct import SelfInstruct, SelfInstructError, estimated_tokens, parse_items, template
from aipo.pipeline.check import check
from aipo.pipeline.kinds import self_instruct_content
from aipo.pipeline.run import build_run
from aipo.records import Completion, Decoding, Message, Prompt

DECODING = Decoding(1.0, 0.9, 50, 64)
PLAIN = SelfInstruct(
    demonstrations=2, tasks_per_call=2, decoding=DECODING, min_tokens=2, max_tokens=6, forbidden_words=("map", "go to"),
    forbidden_starts=("Write a program",), cut_at=("answer:", "a:"), normalize_case=False, calls_per_round=1,
    max_calls_per_prompt=5,
)  # fmt: skip


@dataclass
class Scripted:
    """Answers list after list from `reply(number of the list)`, and remembers what it was asked."""

    reply: Callable[[int], str]
    finish: str = "stop"
    asked: list[tuple[str, int, tuple[str, ...]]] = field(default_factory=list)

    def complete(
        self, texts: Sequence[str], decoding: Decoding, *, n: int, seed: int, stop: Sequence[str] = ()
    ) -> list[list[Completion]]:
        assert n == 1 and decoding is DECODING
        start = len(self.asked)
        self.asked += [(text, seed, tuple(stop)) for text in texts]
        return [[Completion(self.reply(start + place), (1,), self.finish)] for place in range(len(texts))]


def pool(*tasks: str) -> list[Prompt]:
    return [Prompt(f"p{number}", (Message("user", task),), "pool") for number, task in enumerate(tasks)]


POOL = pool("Name a red bird", "Count to nine", "Sing me a song")


def test_template_and_its_inverse() -> None:
    text = template(["Name  a\nbird:", "Count"], "Tasks:\n\n")
    assert text == "Tasks:\n\n1. Name a bird\n2. Count\n3."
    assert parse_items(" Sing a song\n4. Add 1.5 and 2\n5 . no\n\n 6.\nlast") == [
        "Sing a song", "Add 1.5 and 2\n5 . no", "last"
    ]  # fmt: skip
    assert parse_items("9. first\n3.5 litres are\n10. next") == ["", "first\n3.5 litres are", "next"]
    assert estimated_tokens("It's 3, isn't it?") == 10


@given(st.lists(st.text("ab c,", min_size=1).map(lambda s: f"x{s.strip()}x"), min_size=1, max_size=6))
def test_a_list_is_read_back_as_it_was_written(tasks: list[str]) -> None:
    written = template(tasks, "Header:\n").removeprefix("Header:\n").removesuffix(f"\n{len(tasks) + 1}.")
    assert parse_items(written)[1:] == [" ".join(task.split()) for task in tasks]


def test_what_is_asked_and_what_comes() -> None:
    sampler = Scripted(lambda number: f" Draw cat {number}\n4. Find dog {number}")
    prompts, dropped = PLAIN.generate(sampler, POOL, n=3, seed=7)
    assert [prompt.chat for prompt in prompts] == [
        (Message("user", text),) for text in ("Draw cat 0", "Find dog 0", "Draw cat 1")
    ]
    assert {prompt.source for prompt in prompts} == {"self_instruct"} and len({p.prompt_id for p in prompts}) == 3
    assert dropped == {"beyond_wanted": 1}
    (first, seed, stop), (_, second_seed, _) = sampler.asked
    lines = first.split("\n")
    assert lines[0] == "Come up with a series of tasks:" and lines[-1] == "3."
    assert [line[:3] for line in lines[1:3]] == ["1. ", "2. "]
    assert {line[3:] for line in lines[1:3]} < {prompt.chat[0].content for prompt in POOL}
    assert (seed, second_seed) == (7, 8) and stop == ("\n\n", "\n5.")


def test_the_seed_decides() -> None:
    def run(seed: int) -> tuple[list[str], list[Prompt]]:
        sampler = Scripted(lambda number: f" Task number {number}")
        prompts, _ = PLAIN.generate(sampler, POOL * 5, n=8, seed=seed)
        return [text for text, _, _ in sampler.asked], prompts

    assert run(1) == run(1)
    assert run(1)[0] != run(2)[0] and run(1)[1] != run(2)[1]


@pytest.mark.parametrize(
    ("task", "reason"),
    [
        ("", "empty"), ("   ", "empty"), ("one", "too_short"), ("a b c d e f g", "too_long"),
        ("read the Map now", "forbidden_word"), ("please Go To bed", "forbidden_word"), ("read maps now", None),
        ("write a PROGRAM now", "forbidden_start"), ("please write a program", None),
        ("über den Fluss", "starts_non_ascii"), ("(a) or b", "starts_with_punctuation"), ("7 wonders", None),
        ("NAME A RED  bird!", "duplicate"), ("a new task", None), ("Answer: 4", "empty"), ("Name two a: x", None),
    ],
)  # fmt: skip
def test_every_drop_has_its_reason(task: str, reason: str | None) -> None:
    sampler = Scripted(lambda number: f" {task}" if number == 0 else f" good task {number}")
    prompts, dropped = replace(PLAIN, tasks_per_call=1).generate(sampler, POOL, n=2, seed=0)
    assert {key: count for key, count in dropped.items() if count} == ({reason: 1} if reason else {})
    assert len(prompts) == 2


def test_a_task_is_new_once() -> None:
    sampler = Scripted(lambda number: " The same task\n4. the SAME, task" if number == 0 else f" another task {number}")
    prompts, dropped = PLAIN.generate(sampler, POOL, n=2, seed=0)
    assert [prompt.chat[0].content for prompt in prompts] == ["The same task", "another task 1"]
    assert dropped["duplicate"] == 1


def test_the_cut_end_of_a_reply_is_no_task() -> None:
    sampler = Scripted(lambda number: f" whole task {number}\n4. cut off he", finish="length")
    prompts, dropped = PLAIN.generate(sampler, POOL, n=2, seed=0)
    assert [prompt.chat[0].content for prompt in prompts] == ["whole task 0", "whole task 1"]
    assert dropped == {"truncated": 2, "beyond_wanted": 0}


def test_tasks_beyond_those_of_a_call_are_counted() -> None:
    """A list that skips numbers never writes the one that would stop it."""
    sampler = Scripted(lambda number: f" first task {number}\n7. second task {number}\n8. third task {number}\n9.")
    prompts, dropped = replace(PLAIN, tasks_per_call=1).generate(sampler, POOL, n=2, seed=0)
    assert [prompt.chat[0].content for prompt in prompts] == ["first task 0", "first task 1"]
    assert dropped == {"beyond_wanted": 6}


def test_a_list_that_fills_the_context_is_drawn_again() -> None:
    long = " ".join(["word"] * 50)
    tasks, sampler = pool(long, *(f"Name animal {number}" for number in range(5))), Scripted("Do {} now".format)
    prompts, _ = PLAIN.generate(sampler, tasks, n=9, seed=0, fits=lambda text: len(text) < 100)
    assert len(prompts) == 9 and not any(long in text for text, _, _ in sampler.asked)
    usual, other = Scripted("Do {} now".format), Scripted("Do {} now".format)
    PLAIN.generate(usual, tasks, n=9, seed=0)
    PLAIN.generate(other, tasks, n=9, seed=0, fits=lambda text: True)
    assert usual.asked == other.asked and any(long in text for text, _, _ in usual.asked)
    with pytest.raises(SelfInstructError, match=r"draws of 2 pool prompts made no list .* lower self_instruct"):
        PLAIN.generate(sampler, tasks, n=1, seed=0, fits=lambda text: False)


def test_cleaning() -> None:
    assert PLAIN.clean(" Add 1\n and 2. Answer: 3 a: 4") == "Add 1 and 2."
    assert PLAIN.clean("Add. Example: 1 + 1. Answer: 2") == "Add. Example: 1 + 1. Answer: 2"
    assert replace(PLAIN, normalize_case=True).clean("add ONE And two") == "Add one and two"


def test_a_mark_cuts_in_capitals_and_behind_letters_that_grow_when_lowered() -> None:
    assert replace(PLAIN, cut_at=("Answer:",)).clean("Add 1 and 2. ANSWER: 3") == "Add 1 and 2."
    assert PLAIN.clean("Greet İİİ. Answer: hi") == "Greet İİİ."
    assert PLAIN.clean("EXAMPLE: 1. Answer: 2") == "EXAMPLE: 1. Answer: 2"
    assert replace(PLAIN, cut_at=("(a)",)).clean("Choose one. (A) red (b) blue") == "Choose one."


def test_giving_up_says_where_the_tasks_went() -> None:
    with pytest.raises(SelfInstructError, match=r"10 calls gave 0 of 2 prompts; dropped: \{'too_short': 10\}"):
        PLAIN.generate(Scripted(lambda number: " one"), POOL, n=2, seed=0)
    several = [Prompt("s", (Message("system", "x"), Message("user", "Name it")), "pool")] * 3
    with pytest.raises(SelfInstructError, match="at least 2 single-turn pool prompts for demonstrations, got 1"):
        PLAIN.generate(Scripted(lambda number: ""), [*several, POOL[0]], n=1, seed=0)


@pytest.mark.parametrize(
    ("key", "value"),
    [("demonstrations", 0), ("tasks_per_call", 0), ("min_tokens", 0), ("max_tokens", 1), ("max_calls_per_prompt", 0)],
)
def test_bad_settings_are_refused(key: str, value: int) -> None:
    with pytest.raises(ValueError, match=f"self_instruct.{key}"):
        replace(PLAIN, **{key: value})


def test_the_official_settings() -> None:
    from hydra.utils import instantiate

    made = {
        name: instantiate(composed(f"data/self_instruct={name}").data.self_instruct, _convert_="all")
        for name in ("official", "official_tfidf", "official_embeddings")
    }
    official = made["official"]
    assert (official.demonstrations, official.tasks_per_call) == (8, 1)
    assert official.decoding == Decoding(temperature=0.5, top_p=0.9, top_k=50, max_new_tokens=1024)
    assert (official.min_tokens, official.max_tokens, len(official.forbidden_words)) == (4, 512, 13)
    assert template(["x"], official.header) == "Come up with a series of tasks:\n\n1. x\n2."
    assert official.clean("WRITE a Poem. Output: x") == "Write a poem."
    assert official.clusters is None and official.missing() == []
    assert made["official_tfidf"].clusters.embedding == TfidfEmbedding()
    assert replace(made["official_tfidf"], clusters=None) == official


ANIMALS = ["animal zebra lion" + " the" * number for number in range(6)]  # alike but for stop words
COLOURS = ["colour green purple" + " the" * number for number in range(9)]


def test_clusters_by_words() -> None:
    groups = KMeansClusters(TfidfEmbedding(), n_clusters=2).groups([*ANIMALS, *COLOURS])
    assert sorted(groups) == sorted([ANIMALS, COLOURS])
    with pytest.raises(ValueError, match=r"n_clusters=128, got 15; lower n_clusters"):
        KMeansClusters(TfidfEmbedding()).groups([*ANIMALS, *COLOURS])
    with pytest.raises(ValueError, match="clusters.n_clusters must be at least 1"):
        KMeansClusters(TfidfEmbedding(), n_clusters=0)


def test_demonstrations_come_from_each_cluster_in_turn() -> None:
    settings = replace(
        PLAIN, clusters=KMeansClusters(TfidfEmbedding(), n_clusters=2), calls_per_round=2, demonstrations=4
    )
    sampler = Scripted(lambda number: f" Task number {number}")
    prompts, _ = settings.generate(sampler, pool(*ANIMALS, *COLOURS), n=6, seed=0)
    about = ["animal" if "animal" in text else "colour" for text, _, _ in sampler.asked]
    assert all(("animal" in text) != ("colour" in text) for text, _, _ in sampler.asked)
    assert about.count("animal") == about.count("colour") == 3 and len(prompts) == 6


def test_a_cluster_that_has_its_share_is_left_alone() -> None:
    settings = replace(PLAIN, clusters=KMeansClusters(TfidfEmbedding(), n_clusters=2), calls_per_round=2)
    sampler = Scripted(lambda number: "")
    sampler.reply = lambda number: f" Task number {number}" if "animal" in sampler.asked[number][0] else " no"
    with pytest.raises(SelfInstructError):
        settings.generate(sampler, pool(*ANIMALS, *COLOURS), n=4, seed=0)
    assert sum("animal" in text for text, _, _ in sampler.asked) == 2


def test_a_small_cluster_is_filled_up() -> None:
    settings = replace(PLAIN, clusters=KMeansClusters(TfidfEmbedding(), n_clusters=2), demonstrations=8)
    sampler = Scripted(lambda number: f" Task number {number}")
    settings.generate(sampler, pool(*ANIMALS, *COLOURS), n=4, seed=0)
    mixed = [text for text, _, _ in sampler.asked if "animal" in text]
    assert mixed and all(text.count("animal") == 6 and text.count("colour") == 2 for text in mixed)


def test_sentence_embeddings(monkeypatch: pytest.MonkeyPatch) -> None:
    import numpy as np

    loaded: list[tuple[str, str | None]] = []

    class Model:
        def __init__(self, path: str, revision: str | None) -> None:
            loaded.append((path, revision))

        def encode(self, texts: list[str], batch_size: int, convert_to_numpy: bool) -> np.ndarray:
            assert batch_size == 3 and convert_to_numpy
            return np.array([[float(len(text)), 0.0] for text in texts])

    module = types.ModuleType("sentence_transformers")
    module.SentenceTransformer = Model
    monkeypatch.setitem(sys.modules, "sentence_transformers", module)
    groups = KMeansClusters(SentenceEmbedding("m", "r", 3), n_clusters=2).groups(["a", "bbbbbb", "c", "dddd"])
    assert sorted(groups) == [["a", "c"], ["bbbbbb", "dddd"]] and loaded == [("m", "r")]


def test_missing_is_the_embeddings_package(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    settings = replace(PLAIN, clusters=KMeansClusters(SentenceEmbedding("m", None)))
    assert settings.missing() == ["package sentence_transformers: pip install -c constraints.txt -e '.[embed]'"]
    assert replace(PLAIN, clusters=KMeansClusters(TfidfEmbedding())).missing() == []


def test_an_embedding_from_a_folder_is_known_by_its_content(tmp_path: Path) -> None:
    """Another model under the same path gave the prompts of the first."""
    given = ["data=pairrm_gen_si_uf", "data/self_instruct=official_embeddings", "iteration.prompts=4"]

    def content(path: str) -> dict[str, Any]:
        embedding = "data.self_instruct.clusters.embedding"
        run = build_run(check(composed(*given, f"{embedding}.path={path}", "ranker=proxy_biased")))
        return self_instruct_content(run)

    hub = content("a/b")
    assert list(hub) == ["self_instruct"] and hub["self_instruct"]["clusters"]["embedding"]["path"] == "a/b"
    found = []
    for name, text in (("one", "x"), ("moved", "x"), ("other", "y")):
        (tmp_path / name / "1_Pooling").mkdir(parents=True)
        (tmp_path / name / "1_Pooling" / "config.json").write_text(text)
        found.append(content(str(tmp_path / name)))
    assert found[0] == found[1] != found[2] and len(found[0]["identity"]["sha256"]) == 64
    assert "path" not in found[0]["self_instruct"]["clusters"]["embedding"]
    assert replace(PLAIN, clusters=KMeansClusters(TfidfEmbedding())).identity() == {} == PLAIN.identity()
