"""A scripted judge and sampler, and small assets of our own: what the tests of the benchmarks share."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from aipo.benchmarks.alpaca_eval_assets import AlpacaEvalAssets
from aipo.benchmarks.arena_hard import ArenaHardAssets
from aipo.benchmarks.mt_bench import MTBenchAssets
from aipo.records import Chat, Completion, Decoding, JudgeReply


@dataclass
class ScriptedJudge:
    """Answers by a function of the chat and keeps what it was asked."""

    answer: Callable[[Chat], JudgeReply]
    name: str = "scripted"
    batches: list[list[Chat]] = field(default_factory=list)
    settings: list[tuple[int, float, int]] = field(default_factory=list)

    def identity(self) -> dict[str, str]:
        return {"name": self.name}

    def reply(
        self, chats: Sequence[Chat], *, max_tokens: int, temperature: float = 0.0, top_logprobs: int = 0
    ) -> list[JudgeReply]:
        self.batches.append(list(chats))
        self.settings.append((max_tokens, temperature, top_logprobs))
        return [self.answer(chat) for chat in chats]


@dataclass
class EchoSampler:
    """Completes a chat with "<number of turns>: <last user message>"; ids stand for words."""

    calls: list[tuple[list[Chat], Decoding, int]] = field(default_factory=list)

    def sample(self, chats: Sequence[Chat], decoding: Decoding, *, n: int, seed: int) -> list[list[Completion]]:
        self.calls.append((list(chats), decoding, seed))
        return [[completion(f"{len(chat)}: {chat[-1].content}")] * n for chat in chats]


def completion(text: str) -> Completion:
    """A finished completion with one id per word and the end-of-turn id."""
    return Completion(text, (*range(1, 1 + len(re.findall(r"\S+", text))), 0), "stop")


class Given:
    """Assets that are simply given."""

    n_questions = 5
    brings_baseline = True
    needs_world = False

    def __init__(self, assets: object) -> None:
        self.assets = assets
        self.kind = type(assets)

    def load(self) -> object:
        return self.assets

    def identity(self) -> dict[str, str]:
        return {"assets": "given"}


def our_mt_bench() -> MTBenchAssets:
    """Two questions of our own, one judged against a reference."""
    single = "Q: {question} A: {answer}"
    multi = "Q1: {question_1} A1: {answer_1} Q2: {question_2} A2: {answer_2}"
    pair = "Q: {question} A: {answer_a} B: {answer_b}"
    pair_multi = "Q2: {question_2} A: {answer_a_1}/{answer_a_2} B: {answer_b_1}/{answer_b_2} Q1: {question_1}"
    templates = {
        "single-v1": single,
        "single-math-v1": "R: {ref_answer_1} " + single,
        "single-v1-multi-turn": multi,
        "single-math-v1-multi-turn": "R: {ref_answer_1}/{ref_answer_2} " + multi,
        "pair-v2": pair,
        "pair-math-v1": "R: {ref_answer_1} " + pair,
        "pair-v2-multi-turn": pair_multi,
        "pair-math-v1-multi-turn": "R: {ref_answer_1}/{ref_answer_2} " + pair_multi,
    }
    return MTBenchAssets(
        questions=(
            {"question_id": 1, "category": "writing", "turns": ["a poem", "a shorter one"]},
            {"question_id": 2, "category": "math", "turns": ["one and one", "and one more"]},
        ),
        judge_prompts={
            name: {"system_prompt": f"Be fair ({name}).", "prompt_template": template}
            for name, template in templates.items()
        },
        references={"2": ("two", "three")},
    )


def our_alpaca_eval(n_items: int = 4, **changes: object) -> AlpacaEvalAssets:
    """Items of our own with the official chat markers around a prompt of our own."""
    values: dict[str, object] = {
        "items": tuple({"instruction": f"task {number}", "dataset": "ours"} for number in range(n_items)),
        "baseline_outputs": tuple(f"baseline says {number}" for number in range(n_items)),
        "prompt_template": "<|im_start|>system\nChoose.\n<|im_end|>\n<|im_start|>user\n{instruction}\n1) {output_1}\n"
        "2) {output_2}\nm or M?\n<|im_end|>",
    }
    return AlpacaEvalAssets(**(values | changes))  # type: ignore[arg-type]


def our_arena_hard(n_questions: int = 3, **changes: object) -> ArenaHardAssets:
    """Questions of our own."""
    values: dict[str, object] = {
        "questions": tuple(
            {"question_id": f"q{number}", "cluster": "ours", "turns": [{"content": f"problem {number}"}]}
            for number in range(n_questions)
        ),
        "baseline_answers": {f"q{number}": f"baseline solves {number}" for number in range(n_questions)},
        "system_prompt": "Judge.",
        "prompt_template": "{question_1}\n[A] {answer_1}\n[B] {answer_2}",
    }
    return ArenaHardAssets(**(values | changes))  # type: ignore[arg-type]
