"""The official assets of each benchmark, read from the cache that `python -m aipo.benchmarks assets` fills."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from aipo.benchmarks.alpaca_eval_assets import AlpacaEvalAssets
from aipo.benchmarks.arena_hard import ArenaHardAssets
from aipo.benchmarks.judging import AssetIdentity
from aipo.benchmarks.mt_bench import MTBenchAssets
from aipo.benchmarks.official.assets import Asset, AssetCache, asset
from aipo.records import read_jsonl

REFERENCE_CATEGORIES = ("math", "reasoning", "coding")
"""Judged against a reference answer (FastChat llm_judge/common.py, NEED_REF_CATS)."""


@dataclass(frozen=True)
class OfficialMTBench:
    """FastChat's questions and prompts, with the reference answers of one judge."""

    OPERATIONAL: ClassVar[tuple[str, ...]] = ("cache",)
    kind: ClassVar[type[MTBenchAssets]] = MTBenchAssets
    brings_baseline: ClassVar[bool] = False
    needs_world: ClassVar[bool] = False

    references: str = "gpt-4"
    """`gpt-4` (FastChat's) or `gpt-4-1106-preview` (AIPO's, for its GPT-4-Turbo judge)."""
    cache: AssetCache = field(default_factory=AssetCache)

    n_questions = 80

    def __post_init__(self) -> None:
        known = ("gpt-4", "gpt-4-1106-preview")
        if self.references not in known:
            raise ValueError(f"references: expected one of {known}, got {self.references!r}")

    def files(self) -> tuple[Asset, ...]:
        """What `load` reads."""
        return (
            asset("mt_bench/question.jsonl"),
            asset("mt_bench/judge_prompts.jsonl"),
            asset(f"mt_bench/reference_answer/{self.references}.jsonl"),
        )

    def missing(self) -> list[str]:
        """The files that are not in the cache."""
        return _missing_files("mt_bench", self.cache, self.files())

    @property
    def official(self) -> bool:
        """Always: the files are pinned by their hashes."""
        return True

    def identity(self) -> AssetIdentity:
        """The files' hashes: answers depend on the questions alone."""
        questions, *rest = self.files()
        return AssetIdentity(_hashes([questions]), _hashes(rest), {})

    def load(self) -> MTBenchAssets:
        """Raises MissingAsset or WrongAsset. Ignores the `reference` field of the question file, as FastChat does."""
        questions, prompts, references = (read_jsonl(self.cache.path(file)) for file in self.files())
        by_id = {str(row["question_id"]): tuple(row["choices"][0]["turns"]) for row in references}
        wanted = [str(row["question_id"]) for row in questions if row["category"] in REFERENCE_CATEGORIES]
        if missing := [question for question in wanted if question not in by_id]:
            raise ValueError(f"{self.files()[2].path}: no reference answer for questions {missing[:5]}")
        return MTBenchAssets(
            questions=tuple(questions),
            judge_prompts={row["name"]: row for row in prompts},
            references={question: by_id[question] for question in wanted},
        )


@dataclass(frozen=True)
class OfficialAlpacaEval:
    """AlpacaEval 2.0's 805 instructions, the gpt4_1106_preview baseline, its judge prompt and gamed rows."""

    OPERATIONAL: ClassVar[tuple[str, ...]] = ("cache",)
    kind: ClassVar[type[AlpacaEvalAssets]] = AlpacaEvalAssets
    brings_baseline: ClassVar[bool] = True
    needs_world: ClassVar[bool] = False

    gamed: str | None = None
    """Path of another df_gamed.csv, for where the official one cannot be had; the scores are then not official."""
    cache: AssetCache = field(default_factory=AssetCache)

    n_questions = 805

    def files(self) -> tuple[Asset, ...]:
        """What `load` reads from the cache."""
        wanted = ["alpaca_eval/gpt4_1106_preview.json", "alpaca_eval/alpaca_eval_clf.txt"]
        return tuple(asset(path) for path in wanted + ([] if self.gamed else ["alpaca_eval/df_gamed.csv"]))

    def missing(self) -> list[str]:
        """The files that are not in the cache, and a `gamed` file that is not there."""
        lines = _missing_files("alpaca_eval", self.cache, self.files())
        if self.gamed and not Path(self.gamed).is_file():
            lines.append(f"alpaca_eval: assets.gamed names {self.gamed}, which is no file")
        return lines

    @property
    def official(self) -> bool:
        """Unless another df_gamed.csv is named."""
        return self.gamed is None

    def identity(self) -> AssetIdentity:
        """The files' hashes: the baseline's file holds the questions, and scores alone depend on the gamed rows."""
        baseline, template, *gamed = self.files()
        own = {"gamed": hashlib.sha256(Path(self.gamed).read_bytes()).hexdigest()} if self.gamed else {}
        return AssetIdentity(_hashes([baseline]), _hashes([template]), _hashes(gamed) | own)

    def load(self) -> AlpacaEvalAssets:
        """Raises MissingAsset or WrongAsset."""
        import pandas as pd

        baseline, template, *gamed = (self.cache.path(file) for file in self.files())
        rows = json.loads(baseline.read_text(encoding="utf-8"))
        return AlpacaEvalAssets(
            items=tuple({"instruction": row["instruction"], "dataset": row["dataset"]} for row in rows),
            baseline_outputs=tuple(row["output"] for row in rows),
            prompt_template=template.read_text(encoding="utf-8"),
            gamed=pd.read_csv(self.gamed or gamed[0]),
        )


@dataclass(frozen=True)
class OfficialArenaHard:
    """Arena-Hard v0.1's 500 questions, the gpt-4-0314 baseline and the judge prompt."""

    OPERATIONAL: ClassVar[tuple[str, ...]] = ("cache",)
    kind: ClassVar[type[ArenaHardAssets]] = ArenaHardAssets
    brings_baseline: ClassVar[bool] = True
    needs_world: ClassVar[bool] = False

    cache: AssetCache = field(default_factory=AssetCache)

    n_questions = 500

    def files(self) -> tuple[Asset, ...]:
        """What `load` reads."""
        return (
            asset("arena_hard/question.jsonl"),
            asset("arena_hard/model_answer/gpt-4-0314.jsonl"),
            asset("arena_hard/judge_config.yaml"),
        )

    def missing(self) -> list[str]:
        """The files that are not in the cache."""
        return _missing_files("arena_hard", self.cache, self.files())

    @property
    def official(self) -> bool:
        """Always: the files are pinned by their hashes."""
        return True

    def identity(self) -> AssetIdentity:
        """The files' hashes: answers depend on the questions alone."""
        questions, *rest = self.files()
        return AssetIdentity(_hashes([questions]), _hashes(rest), {})

    def load(self) -> ArenaHardAssets:
        """Raises MissingAsset or WrongAsset."""
        import yaml

        questions, baseline, config = (self.cache.path(file) for file in self.files())
        settings = yaml.safe_load(config.read_text(encoding="utf-8"))
        return ArenaHardAssets(
            questions=tuple(read_jsonl(questions)),
            baseline_answers={
                str(row["question_id"]): row["choices"][0]["turns"][0]["content"] for row in read_jsonl(baseline)
            },
            system_prompt=settings["system_prompt"],
            prompt_template=settings["prompt_template"][0],
        )


def _missing_files(benchmark: str, cache: AssetCache, files: Sequence[Asset]) -> list[str]:
    """One line that names all of them, or none."""
    names = [Path(file.path).name for file in cache.missing(files)]
    if not names:
        return []
    return [
        f"{benchmark} files in {cache.folder}: {', '.join(names)}; fetch them with "
        f"`python -m aipo.benchmarks assets {benchmark}`"
    ]


def _hashes(files: Sequence[Asset]) -> dict[str, str]:
    return {file.path: file.sha256 for file in files}
