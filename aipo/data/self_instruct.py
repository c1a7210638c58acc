"""New prompts from old ones: the policy continues a numbered list of tasks (Self-Instruct, arXiv 2212.10560, in the
form of the AIPO code). Every generated task that is not kept is counted by its reason.

Departures from that code: draws are seeded; what looks like an answer is cut off before the filters are asked;
the last task of a reply that was cut at the token limit is dropped; so is a task that equals a single-turn prompt of
the pool, or an earlier task, but for case, punctuation and symbols; tokens are estimated where the official count needs
a download.
"""

from __future__ import annotations

import hashlib
import logging
import math
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from aipo.components import require_range
from aipo.data.prompt_clusters import KMeansClusters
from aipo.records import Decoding, Message, Prompt
from aipo.samplers.sampler import Sampler

NUMBERED = re.compile(r"(?:^|\n)\s*+(\d++\.(?!\d))?")
"""Where a line begins, and with it perhaps a list item: a number and a full stop, no decimal fraction."""
MOST_DRAWS = 100
"""Of demonstrations for one list."""
logger = logging.getLogger("aipo")


class SelfInstructError(RuntimeError):
    """Too few usable prompts came out."""


@dataclass(frozen=True)
class SelfInstruct:
    """Settings of the generator; the official ones are in conf/data/self_instruct/official.yaml."""

    demonstrations: int
    """Pool prompts shown in the list."""
    tasks_per_call: int
    decoding: Decoding
    min_tokens: int
    max_tokens: int
    """Of a kept prompt, estimated as in `estimated_tokens`."""
    forbidden_words: tuple[str, ...]
    """A prompt with one of these words or phrases asks for what a text model cannot see or do."""
    forbidden_starts: tuple[str, ...]
    cut_at: tuple[str, ...]
    """A task is cut before the first of these: what follows is an answer, not a task. Capitals or not. Not where
    "example:" occurs."""
    normalize_case: bool
    """First letter capitalised, the rest lower-cased, as the official code does."""
    calls_per_round: int
    """Lists sampled at once."""
    max_calls_per_prompt: float
    """After so many calls for each wanted prompt the generator gives up with an error."""
    header: str = "Come up with a series of tasks:\n"
    """What stands above the list."""
    clusters: KMeansClusters | None = None
    """Groups of the pool from which each list's demonstrations come in turn; None: the whole pool."""

    def __post_init__(self) -> None:
        for name in ("demonstrations", "tasks_per_call", "min_tokens", "calls_per_round"):
            if getattr(self, name) < 1:
                raise ValueError(f"self_instruct.{name} must be at least 1, got {getattr(self, name)}")
        require_range(
            "self_instruct", self, demonstrations=(1, 1000), tasks_per_call=(1, 1000), calls_per_round=(1, 10**5)
        )
        if self.max_tokens < self.min_tokens:
            raise ValueError(f"self_instruct.max_tokens={self.max_tokens} is below min_tokens={self.min_tokens}")
        if self.max_calls_per_prompt <= 0:
            raise ValueError(f"self_instruct.max_calls_per_prompt must be above 0, got {self.max_calls_per_prompt}")

    def missing(self) -> list[str]:
        """What the clusters' embedding misses."""
        return self.clusters.missing() if self.clusters is not None else []

    def identity(self) -> Mapping[str, str]:
        """What pins the clusters beyond the settings."""
        return self.clusters.identity() if self.clusters is not None else {}

    def generate(
        self,
        sampler: Sampler,
        pool: Sequence[Prompt],
        *,
        n: int,
        seed: int,
        fits: Callable[[str], bool] = lambda text: True,
    ) -> tuple[list[Prompt], dict[str, int]]:
        """`n` new single-turn prompts and the drops by reason. SelfInstructError when they do not come.

        `fits` says whether a list leaves the policy room to continue it; demonstrations for one that does not are drawn
        again.
        """
        tasks = [prompt.chat[0].content for prompt in pool if len(prompt.chat) == 1]
        if len(tasks) < self.demonstrations:
            raise SelfInstructError(
                f"expected at least {self.demonstrations} single-turn pool prompts for demonstrations, got {len(tasks)}"
            )
        known = {_normalized(task) for task in tasks}
        groups = [tasks] if self.clusters is None else self.clusters.groups(tasks)
        quota = math.ceil(n / len(groups))
        found = [0] * len(groups)
        picks = random.Random(seed)
        kept: list[Prompt] = []
        dropped: Counter[str] = Counter()
        calls = 0
        while len(kept) < n:
            if calls >= self.max_calls_per_prompt * n:
                raise SelfInstructError(
                    f"{calls} calls gave {len(kept)} of {n} prompts; dropped: {dict(dropped)}. The policy may no "
                    "longer continue task lists; raise self_instruct.max_calls_per_prompt or use data=pairrm_gen_uf"
                )
            open_groups = [number for number, count in enumerate(found) if count < quota]
            turns = [open_groups[(calls + turn) % len(open_groups)] for turn in range(self.calls_per_round)]
            lists = [self._list(picks, groups[turn], tasks, fits) for turn in turns]
            stop = ("\n\n", f"\n{self.demonstrations + self.tasks_per_call + 1}.")
            replies = sampler.complete(lists, self.decoding, n=1, seed=seed + calls, stop=stop)
            calls += len(lists)
            for turn, reply in zip(turns, replies, strict=True):
                for task in self._usable(reply[0].text, reply[0].finish == "length", known, dropped):
                    known.add(_normalized(task))
                    kept.append(_prompt(task, seed, len(kept)))
                    found[turn] += 1
        dropped["beyond_wanted"] += len(kept) - n
        logger.info("self-instruct: %d task lists gave %d prompts", calls, len(kept))
        return kept[:n], dict(dropped)

    def _list(
        self, picks: random.Random, group: Sequence[str], tasks: Sequence[str], fits: Callable[[str], bool]
    ) -> str:
        for _ in range(MOST_DRAWS):
            shown = template(self._demonstrations(picks, group, tasks), self.header)
            if fits(shown):
                return shown
        raise SelfInstructError(
            f"{MOST_DRAWS} draws of {self.demonstrations} pool prompts made no list that leaves room in the policy's "
            "context; lower self_instruct.demonstrations, or choose a model with a longer context"
        )

    def _demonstrations(self, picks: random.Random, group: Sequence[str], tasks: Sequence[str]) -> list[str]:
        """Tasks of one group; a group that is too small is filled up from the whole pool."""
        if len(group) >= self.demonstrations:
            return picks.sample(group, self.demonstrations)
        own = set(group)
        others = [task for task in tasks if task not in own]
        return [*group, *picks.sample(others, min(len(others), self.demonstrations - len(group)))]

    def _usable(self, text: str, truncated: bool, known: set[str], dropped: Counter[str]) -> Iterator[str]:
        items = parse_items(text)
        for number, item in enumerate(items):
            if number >= self.tasks_per_call:  # numbered otherwise than was asked, so that the stop string never came
                dropped["beyond_wanted"] += 1
                continue
            if truncated and number == len(items) - 1:
                dropped["truncated"] += 1
                continue
            task = self.clean(item)
            reason = self.reason_to_drop(task)
            if reason is None and _normalized(task) in known:
                reason = "duplicate"
            if reason is None:
                yield task
            else:
                dropped[reason] += 1

    def clean(self, item: str) -> str:
        """Whitespace collapsed, what looks like an answer cut off, case normalised if asked."""
        task = " ".join(item.split())
        if "example:" not in task.lower():
            found = [re.search(re.escape(mark), task, re.IGNORECASE) for mark in self.cut_at]
            task = task[: min((mark.start() for mark in found if mark), default=len(task))].strip()
        if self.normalize_case and task:
            task = task[0].upper() + task[1:].lower()
        return task

    def reason_to_drop(self, task: str) -> str | None:
        """Why a cleaned task is no usable prompt, or None."""
        if not task:
            return "empty"
        tokens = estimated_tokens(task)
        if tokens < self.min_tokens:
            return "too_short"
        if tokens > self.max_tokens:
            return "too_long"
        if any(re.search(rf"\b{re.escape(word)}\b", task, re.IGNORECASE) for word in self.forbidden_words):
            return "forbidden_word"
        if any(task.lower().startswith(start.lower()) for start in self.forbidden_starts):
            return "forbidden_start"
        if not task[0].isascii():
            return "starts_non_ascii"
        if not task[0].isalnum():
            return "starts_with_punctuation"
        return None


def template(tasks: Sequence[str], header: str) -> str:
    """The list that the policy continues; it ends with the number of the first task to write."""
    items = "".join(f"{number}. {' '.join(task.split()).rstrip(':')}\n" for number, task in enumerate(tasks, start=1))
    return f"{header}{items}{len(tasks) + 1}."


def parse_items(text: str) -> list[str]:
    """The list items of a continuation, the first of which has its number in the template."""
    items, begun = [], 0
    for line in NUMBERED.finditer(text):
        if line[1] is not None:
            items.append(text[begun : line.start()].strip())
            begun = line.end()
    return [*items, text[begun:].strip()]


def estimated_tokens(text: str) -> int:
    """Words and punctuation marks: an estimate of the official code's tiktoken count, which needs a download."""
    return len(re.findall(r"\w+|[^\w\s]", text))


def _normalized(task: str) -> str:
    return " ".join(re.findall(r"\w+", task.lower()))


def _prompt(task: str, seed: int, number: int) -> Prompt:
    digest = hashlib.sha256(f"{seed}/{number}/{task}".encode()).hexdigest()[:16]
    return Prompt(f"si-{digest}", (Message("user", task),), "self_instruct")
