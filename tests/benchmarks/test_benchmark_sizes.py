"""What a benchmark says about its size before it runs is what it then does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from composing import composed
from hydra.utils import instantiate

from aipo.benchmarks.official.assets import AssetCache
from aipo.benchmarks.official.cl100k import Cl100kTokens
from aipo.benchmarks.official.questions import OfficialAlpacaEval, OfficialArenaHard, OfficialMTBench
from aipo.records import Completion, JudgeReply

CONF = Path(__file__).resolve().parents[2] / "conf"
MINIATURE = ["gold", "mini_mt_bench", "mini_alpaca_eval", "mini_arena_hard"]


@dataclass
class Scribe:
    """A sampler that counts, and gives every completion a text of its own."""

    answered: int = 0

    def sample(self, chats: Sequence[Any], decoding: Any, *, n: int, seed: int) -> list[list[Completion]]:
        self.answered += len(chats)
        return [[Completion(f"answer {seed} {number}", (1, 2), "stop")] for number in range(len(chats))]


@dataclass
class Clerk:
    """A judge that counts, and is never undecided."""

    name: str = "clerk"
    asked: list[int] = field(default_factory=list)

    def reply(self, chats: Sequence[Any], **_: Any) -> list[JudgeReply]:
        self.asked.append(len(chats))
        return [JudgeReply("m [[A=B]]", top_logprobs={"m": -0.1, "M": -2.4})] * len(chats)


@pytest.mark.parametrize("name", MINIATURE)
def test_sizes_are_those_of_the_run(name: str) -> None:
    node = next(iter(composed(f"benchmark=[{name}]").benchmark.values()))
    benchmark, scribe, clerk = instantiate(node, _convert_="all"), Scribe(), Clerk()
    answers = benchmark.answer(scribe, seed=0)
    baseline = benchmark.answer(Scribe(), seed=1) if benchmark.needs_baseline else None
    benchmark.judge(answers, clerk, baseline=baseline)
    assert scribe.answered == benchmark.n_answers
    assert sum(clerk.asked) == benchmark.n_judge_requests


@pytest.mark.parametrize(
    ("kind", "folder", "rows"),
    [
        (OfficialMTBench, "mt_bench", lambda assets: assets.questions),
        (OfficialAlpacaEval, "alpaca_eval", lambda assets: assets.items),
        (OfficialArenaHard, "arena_hard", lambda assets: assets.questions),
    ],
)
def test_official_sizes(kind: type, folder: str, rows: Any, verification_data: Path) -> None:
    assets = kind(cache=AssetCache(str(verification_data)))
    if assets.missing():
        pytest.skip(f"not among the verification data: {assets.missing()[0]}")
    assert len(rows(assets.load())) == assets.n_questions


def test_missing_official_files_are_named_with_their_remedy(tmp_path: Path) -> None:
    assets = OfficialMTBench(cache=AssetCache(str(tmp_path)))
    (tmp_path / "mt_bench").mkdir()
    (tmp_path / "mt_bench" / "question.jsonl").write_text("")
    (line,) = assets.missing()
    assert "judge_prompts.jsonl, gpt-4.jsonl" in line and "question.jsonl" not in line
    assert "python -m aipo.benchmarks assets mt_bench" in line
    (line,) = Cl100kTokens(AssetCache(str(tmp_path))).missing()
    assert "python -m aipo.benchmarks assets arena_hard" in line
