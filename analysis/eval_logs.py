"""Judged answers as logs of inspect_ai (`.eval`), written by its own library: `aipo eval-logs results/<sweep>`.

A log is one benchmark of one policy by one judge. A sample has the question, the answer as the policy gave it, its
value, and in the metadata lengths, the baseline's answer and every verdict with the judge's replies. The format is
inspect_ai's; https://inspect.aisi.org.uk/eval-logs.html describes it.
"""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from aipo.jobs import BASE_ITERATION
from aipo.records import Completion, to_row
from analysis.collect import AnalysisError
from analysis.judged import JudgedBenchmark, JudgedSample, judged

if TYPE_CHECKING:
    from inspect_ai.log import EvalLog, EvalResults, EvalSample
    from inspect_ai.scorer import Score

FOLDER = "eval_logs"
"""Where they lie in a sweep's folder, unless another place is asked for."""
PLAIN = re.compile(r"[^A-Za-z0-9.,=_-]+")
"""What a file's name does not hold."""


def write_eval_logs(sweep: Path, out: Path | None = None) -> Iterator[Path]:
    """Write every log that is not there yet below `out`, by default the sweep's `eval_logs`; yields each one's path.

    A log is named by its scores' fingerprint, which decides all that is in it: one that is there is left. Raises
    AnalysisError where inspect_ai, a job or an artifact is missing.
    """
    if importlib.util.find_spec("inspect_ai") is None:
        raise AnalysisError(
            "eval logs are written by inspect_ai, which is not installed: pip install 'aipo[inspect]' without "
            "constraints.txt, best into an environment of its own (it asks for an older fsspec)"
        )
    from inspect_ai.log import write_eval_log

    for item in judged(sweep):
        path = (out or sweep / FOLDER) / folder_name(item) / file_name(item)
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_name(f".{path.name}.{os.getpid()}")
            write_eval_log(eval_log(item), partial, format="eval")
            partial.replace(path)
        yield path


def export(sweep: Path, out: Path | None) -> None:
    """Write the logs and say where they are and what opens them."""
    paths = list(write_eval_logs(sweep, out))
    place = out or sweep / FOLDER
    print(f"{len(paths)} logs in {place}; look at them with: inspect view --log-dir {place}")


def folder_name(item: JudgedBenchmark) -> str:
    """The job's; what base models said is shared by jobs and lies in a folder of its own."""
    return "base_models" if item.point.iteration == BASE_ITERATION else item.run.job


def file_name(item: JudgedBenchmark) -> str:
    """`round-02_gold_<fingerprint>.eval`: in a listing rounds are in order, and two scores never meet."""
    return PLAIN.sub("-", f"{round_label(item)}_{task(item)}_{item.score.fingerprint}") + ".eval"


def round_label(item: JudgedBenchmark) -> str:
    """`base`, or the round with two digits."""
    return "base" if item.point.iteration == BASE_ITERATION else f"round-{item.point.iteration + 1:02d}"


def task(item: JudgedBenchmark) -> str:
    """The benchmark, and who judged where that is not the job's own judge."""
    return f"{item.score.benchmark} by {item.score.judge}" if item.score.diagnostic else item.score.benchmark


def eval_log(item: JudgedBenchmark) -> EvalLog:
    """The log of one benchmark, policy and judge."""
    from inspect_ai.log import EvalConfig, EvalDataset, EvalLog, EvalSpec, EvalStats
    from inspect_ai.model import ModelUsage

    digest = item.score.fingerprint
    n_tokens = sum(turn.n_tokens for sample in item.samples for turn in sample.turns)
    usage = {_model(item): ModelUsage(output_tokens=n_tokens, total_tokens=n_tokens)}
    spec = EvalSpec(
        eval_id=digest,
        run_id=digest,
        task_id=digest,
        created=item.created,
        task=task(item),
        dataset=EvalDataset(
            name=item.score.benchmark,
            samples=len(item.samples),
            sample_ids=[sample.question_id for sample in item.samples],
        ),
        model=_model(item),
        config=EvalConfig(),
        packages=dict(item.packages),
        metadata={
            **_whose(item),
            "judge": item.score.judge,
            "diagnostic": item.score.diagnostic,
            "official": item.benchmark.official,
            "policy": item.point.policy,
            "commit": item.commit,
            **item.fingerprints,
        },
    )
    return EvalLog(
        status="success",
        eval=spec,
        results=_results(item),
        stats=EvalStats(started_at=item.created, completed_at=item.created, model_usage=usage),
        samples=[_sample(item, sample) for sample in item.samples],
    )


def _whose(item: JudgedBenchmark) -> dict[str, Any]:
    """Of a base model nothing is said that only one of the jobs with it would be."""
    record = item.run.record
    trained = {"job": item.run.job, "objective": record.objective, "seed": record.seed}
    rounds = {"round": item.point.iteration + 1, "base_model": record.model}
    return rounds if item.point.iteration == BASE_ITERATION else trained | rounds


def _model(item: JudgedBenchmark) -> str:
    if item.point.iteration == BASE_ITERATION:
        return f"aipo/{item.run.record.model}/{item.point.policy}"
    return f"aipo/{item.run.job}/{round_label(item)}"


def _results(item: JudgedBenchmark) -> EvalResults:
    """The artifact's metrics, the one that tables show first."""
    from inspect_ai.log import EvalMetric, EvalResults, EvalScore

    primary = item.benchmark.primary_metric
    metrics = {
        metric.name: EvalMetric(
            name=metric.name,
            value=metric.value,
            metadata={"ci95": metric.ci95, "n_scored": metric.n_scored, "n_unscored": metric.n_unscored},
        )
        for metric in sorted(item.metrics, key=lambda metric: metric.name != primary)
    }
    scored = sum(sample.score is not None and sample.score.value is not None for sample in item.samples)
    score = EvalScore(
        name=_score_name(item),
        scorer=item.score.judge,
        scored_samples=scored,
        unscored_samples=len(item.samples) - scored,
        metrics=metrics,
    )
    return EvalResults(total_samples=len(item.samples), completed_samples=len(item.samples), scores=[score])


def _score_name(item: JudgedBenchmark) -> str:
    named = [sample.score.metric for sample in item.samples if sample.score is not None]
    return named[0] if named else item.benchmark.primary_metric


def _sample(item: JudgedBenchmark, sample: JudgedSample) -> EvalSample:
    from inspect_ai.log import EvalSample
    from inspect_ai.model import (
        ChatCompletionChoice,
        ChatMessageAssistant,
        ChatMessageUser,
        ModelOutput,
        ModelUsage,
    )

    name = f"{item.score.fingerprint}-{sample.question_id}"
    messages: list[Any] = []
    for number, turn in enumerate(sample.turns):
        if number < len(sample.asked):
            messages.append(ChatMessageUser(id=f"{name}-u{number}", content=sample.asked[number]))
        messages.append(ChatMessageAssistant(id=f"{name}-a{number}", content=turn.text, model=_model(item)))
    asked = [message for message in messages if isinstance(message, ChatMessageUser)]
    ended: Literal["max_tokens", "stop"] = "max_tokens" if sample.turns[-1].finish == "length" else "stop"
    n_tokens = sum(turn.n_tokens for turn in sample.turns)
    output = ModelOutput(
        model=_model(item),
        choices=[ChatCompletionChoice(message=messages[-1], stop_reason=ended)],
        usage=ModelUsage(output_tokens=n_tokens, total_tokens=n_tokens),
    )
    return EvalSample(
        id=sample.question_id,
        epoch=1,
        input=asked[0].text if len(asked) == 1 else list(asked),
        target="",
        messages=messages,
        output=output,
        scores={_score_name(item): _score(sample)},
        metadata={
            "n_chars": sample.score.n_chars if sample.score else None,
            "n_tokens": sample.score.n_tokens if sample.score else None,
            "weight": sample.score.weight if sample.score else None,
            "turns": [_turn(turn) for turn in sample.turns],
            "baseline": [_turn(turn) | {"text": turn.text} for turn in sample.baseline],
        },
        uuid=name,
    )


def _turn(turn: Completion) -> dict[str, Any]:
    return {"n_tokens": turn.n_tokens, "n_chars": len(turn.text), "finish": turn.finish, "logp": turn.logp}


def _score(sample: JudgedSample) -> Score:
    """The question's value; without one it counts as unscored, which inspect_ai leaves out of its own means."""
    from inspect_ai.scorer import Score

    replies = [reply.text or reply.error or "" for verdict in sample.judgments for reply in verdict.replies]
    verdicts = [to_row(verdict) for verdict in sample.judgments]
    shared: dict[str, Any] = {"explanation": "\n\n".join(replies) or None, "metadata": {"verdicts": verdicts}}
    if sample.score is None or sample.score.value is None:
        return Score.unscored(reason="grader_failed", **shared)
    return Score(value=sample.score.value, answer=sample.turns[-1].text, **shared)
