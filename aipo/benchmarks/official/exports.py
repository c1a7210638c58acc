"""A run's answers and judgments as official files: what `python -m aipo.benchmarks export` writes, per benchmark."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path

from aipo.benchmarks.judging import by_question
from aipo.benchmarks.mt_bench import question_ids
from aipo.benchmarks.official.assets import AssetCache, MissingAsset
from aipo.benchmarks.official.questions import OfficialAlpacaEval, OfficialArenaHard, OfficialMTBench
from aipo.benchmarks.official.reading import file_name
from aipo.records import Answer, Judgment, from_row, read_jsonl, read_parquet


def mt_bench(options: Namespace) -> list[Path]:
    """model_answer/<model>.jsonl and model_judgment/<judge>_single.jsonl."""
    from aipo.benchmarks.official.mt_bench_files import write_answers, write_single_judgments

    answers, judgments = _artifacts(options)
    assets = OfficialMTBench(cache=AssetCache(options.assets)).load()
    _require_official(question_ids(assets), answers, judgments, n_turns=2)
    files = [options.out / "model_answer" / f"{options.model}.jsonl"]
    write_answers(_ready(files[0]), answers, options.model)
    if judgments:
        files.append(options.out / "model_judgment" / f"{_file_name(judgments)}_single.jsonl")
        write_single_judgments(_ready(files[1]), assets, answers, judgments, options.model)
    return files


def mt_bench_pairwise(options: Namespace) -> list[Path]:
    """model_answer/ of both sides and model_judgment/<judge>_pair.jsonl."""
    from aipo.benchmarks.official.mt_bench_files import write_answers, write_pair_judgments

    if options.baseline_answers is None:
        raise ValueError("mt_bench_pairwise: give the other side with --baseline-answers")
    answers, judgments = _artifacts(options)
    baseline = read_parquet(options.baseline_answers, Answer)
    assets = OfficialMTBench(cache=AssetCache(options.assets)).load()
    _require_official(question_ids(assets), answers, judgments, n_turns=2)
    _require_official(question_ids(assets), baseline, judgments, n_turns=2)
    files = [options.out / "model_answer" / f"{name}.jsonl" for name in (options.model, options.baseline)]
    write_answers(_ready(files[0]), answers, options.model)
    write_answers(_ready(files[1]), baseline, options.baseline)
    if judgments:
        files.append(options.out / "model_judgment" / f"{_file_name(judgments)}_pair.jsonl")
        write_pair_judgments(_ready(files[2]), assets, answers, baseline, judgments, options.model, options.baseline)
    return files


def alpaca_eval(options: Namespace) -> list[Path]:
    """<model>/model_outputs.json and <model>/annotations.json."""
    from aipo.benchmarks.official.alpaca_eval_files import write_annotations, write_outputs

    answers, judgments = _artifacts(options)
    assets = OfficialAlpacaEval(cache=AssetCache(options.assets)).load()
    _require_official([str(position) for position in range(len(assets.items))], answers, judgments, n_turns=1)
    files = [options.out / options.model / "model_outputs.json"]
    write_outputs(_ready(files[0]), assets, answers, options.model)
    if judgments:
        files.append(options.out / options.model / "annotations.json")
        write_annotations(_ready(files[1]), assets, answers, assets.baseline_outputs or (), judgments, options.model)
    return files


def arena_hard(options: Namespace) -> list[Path]:
    """model_answer/<model>.jsonl and model_judgment/<judge>/<model>.jsonl; `token_len` where tiktoken can count."""
    from aipo.benchmarks.official.arena_hard_files import write_answers, write_judgments
    from aipo.benchmarks.official.cl100k import Cl100kTokens

    answers, judgments = _artifacts(options)
    cache = AssetCache(options.assets)
    assets = OfficialArenaHard(cache=cache).load()
    _require_official([str(question["question_id"]) for question in assets.questions], answers, judgments, n_turns=1)
    try:
        counts = Cl100kTokens(cache).count([answer.turns[0] for answer in answers])
    except MissingAsset:
        counts = None
    files = [options.out / "model_answer" / f"{options.model}.jsonl"]
    write_answers(_ready(files[0]), answers, options.model, counts)
    if judgments:
        files.append(options.out / "model_judgment" / _file_name(judgments) / f"{options.model}.jsonl")
        write_judgments(_ready(files[1]), assets, answers, assets.baseline_answers or {}, judgments, options.model)
    return files


def _artifacts(options: Namespace) -> tuple[list[Answer], list[Judgment]]:
    judgments = [] if options.judgments is None else [from_row(Judgment, row) for row in read_jsonl(options.judgments)]
    return read_parquet(options.answers, Answer), judgments


def _require_official(
    ids: Sequence[str], answers: Sequence[Answer], judgments: Sequence[Judgment], *, n_turns: int
) -> None:
    """ValueError unless answers and judgments are of the official questions: other runs have no official files."""
    by_question(answers, ids, "only a run on the official questions can be exported;", n_turns)
    judged = {judgment.question_id for judgment in judgments}
    if judgments and judged != set(ids):
        missing, unknown = sorted(set(ids) - judged), sorted(judged - set(ids))
        raise ValueError(f"judgments: missing for questions {missing[:5]}, unknown {unknown[:5]}")


def _file_name(judgments: list[Judgment]) -> str:
    return file_name(judgments[0].judge)


def _ready(file: Path) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    return file


EXPORTS: dict[str, Callable[[Namespace], list[Path]]] = {
    "mt_bench": mt_bench,
    "mt_bench_pairwise": mt_bench_pairwise,
    "alpaca_eval": alpaca_eval,
    "arena_hard": arena_hard,
}
