"""Questions and judge prompts with which the official benchmark classes run in the miniature.

Every first turn comes from the held-out side of the split: no pool prompt and no training document opens with a
request for its set of facts. The questions of different benchmarks differ from each other in text.
"""

from __future__ import annotations

import functools
import random
from dataclasses import dataclass
from typing import ClassVar

from aipo.benchmarks.alpaca_eval_assets import AlpacaEvalAssets
from aipo.benchmarks.arena_hard import ArenaHardAssets
from aipo.benchmarks.judging import AssetIdentity
from aipo.benchmarks.mt_bench import MTBenchAssets
from aipo.miniature.judge_prompts import (
    ALPACA_EVAL_PROMPT,
    ARENA_HARD_PROMPT,
    ARENA_HARD_SYSTEM_PROMPT,
    MT_BENCH_PROMPTS,
)
from aipo.miniature.world import WORLD_VERSION, Request, draw_follow_up, draw_prompt, state

MT_BENCH_CATEGORIES = ("writing", "roleplay", "reasoning", "math", "coding", "extraction", "stem", "humanities")
"""The official ones: they decide the temperature, and which questions are judged against a reference answer."""
REFERENCE_CATEGORIES = ("reasoning", "math", "coding")
QUESTIONS_PER_BENCHMARK = 500
"""Room for each benchmark in the one stream of held-out questions, so that none shares a text with another."""
PROMPTS_VERSION = "1"
"""Raised when a judge prompt of the miniature changes."""
_STREAM = ("gold", "mt_bench", "alpaca_eval", "arena_hard")


@functools.cache
def held_out_questions(benchmark: str, n: int, seed: int) -> tuple[tuple[Request, str], ...]:
    """The first `n` questions of a benchmark, all of different text. More questions keep the first ones."""
    require_room(benchmark, n)
    rng = random.Random(f"held out {seed}")
    found: dict[str, Request] = {}
    start = QUESTIONS_PER_BENCHMARK * _STREAM.index(benchmark)
    while len(found) < start + n:
        request, text = draw_prompt(rng, held_out=True)
        found.setdefault(text, request)
    return tuple((request, text) for text, request in list(found.items())[start:])


def require_room(name: str, n_questions: int) -> None:
    """ValueError unless so many questions can be had."""
    if not 1 <= n_questions <= QUESTIONS_PER_BENCHMARK:
        raise ValueError(f"{name}: n_questions must be in 1..{QUESTIONS_PER_BENCHMARK}, got {n_questions}")


def reference_answer(request: Request) -> str:
    """The right facts asked for, and nothing else."""
    return " ".join(state(fact) for fact in request.facts())


@dataclass(frozen=True)
class _HeldOut:
    official: ClassVar[bool] = False
    brings_baseline: ClassVar[bool] = False
    needs_world: ClassVar[bool] = True

    n_questions: int
    seed: int

    def __post_init__(self) -> None:
        require_room(type(self).__name__, self.n_questions)

    def identity(self) -> AssetIdentity:
        """The content follows from the settings alone; the versions count changes of the world's texts and prompts."""
        return AssetIdentity({"world": WORLD_VERSION}, {"prompts": PROMPTS_VERSION}, {})


@dataclass(frozen=True)
class MiniatureMTBench(_HeldOut):
    """Two-turn questions, the eight categories in turn; references for the three that have them officially."""

    kind: ClassVar[type[MTBenchAssets]] = MTBenchAssets

    def load(self) -> MTBenchAssets:
        rng = random.Random(f"follow-ups {self.seed}")
        questions = []
        references = {}
        for position, (request, text) in enumerate(held_out_questions("mt_bench", self.n_questions, self.seed)):
            category = MT_BENCH_CATEGORIES[position % len(MT_BENCH_CATEGORIES)]
            follow_up, second_text = draw_follow_up(rng, request)
            questions.append({"question_id": position + 1, "category": category, "turns": [text, second_text]})
            if category in REFERENCE_CATEGORIES:
                references[str(position + 1)] = (reference_answer(request), reference_answer(follow_up))
        return MTBenchAssets(tuple(questions), MT_BENCH_PROMPTS, references)


@dataclass(frozen=True)
class MiniatureAlpacaEval(_HeldOut):
    """One-turn instructions, against the base model's answers."""

    kind: ClassVar[type[AlpacaEvalAssets]] = AlpacaEvalAssets

    def load(self) -> AlpacaEvalAssets:
        items = tuple(
            {"instruction": text, "dataset": f"{request.n_facts}_facts"}
            for request, text in held_out_questions("alpaca_eval", self.n_questions, self.seed)
        )
        return AlpacaEvalAssets(items, baseline_outputs=None, prompt_template=ALPACA_EVAL_PROMPT)


@dataclass(frozen=True)
class MiniatureArenaHard(_HeldOut):
    """One-turn questions, against the base model's answers; the number of facts asked for is the cluster."""

    kind: ClassVar[type[ArenaHardAssets]] = ArenaHardAssets

    def load(self) -> ArenaHardAssets:
        questions = tuple(
            {"question_id": f"mini-{position:03d}", "cluster": f"{request.n_facts} facts", "turns": [{"content": text}]}
            for position, (request, text) in enumerate(
                held_out_questions("arena_hard", self.n_questions, self.seed), start=1
            )
        )
        return ArenaHardAssets(questions, None, ARENA_HARD_SYSTEM_PROMPT, ARENA_HARD_PROMPT)
