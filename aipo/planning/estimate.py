"""What the stages still to run would cost: of one job, or of all jobs of a sweep."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from aipo.artifacts import StageEvent
from aipo.data.source import CountedSource
from aipo.iteration import KL_COMPLETIONS
from aipo.judges.endpoints import Priced
from aipo.judges.judge import Judge
from aipo.models.policy import PolicyRef
from aipo.models.shape import ModelShape, shape_of_folder
from aipo.planning.costs import Cost, decoding_cost, forward_cost, reading_cost, training_cost
from aipo.planning.memory import TrainingSetup, average_gib, policy_gib
from aipo.planning.resources import STAGES, Kind
from aipo.planning.subject import Subject
from aipo.rankers.ranker import JudgedRanker, ReadingRanker


def model_shape(run: Subject, events: Sequence[StageEvent]) -> ModelShape | None:
    """The shape a preset states, a local folder's, or that of a base model already built; else None."""
    if isinstance(run.model, PolicyRef):
        if run.model.shape is not None:
            return run.model.shape
        folder = Path(run.model.path)
    else:
        built = [event.fingerprint for event in events if (event.stage, event.outcome) == ("base_model", "cached")]
        folder = run.store.root / "base_model" / (built[0] if built else "none") / "model"
    return shape_of_folder(folder) if (folder / "config.json").exists() else None


def prompts_of_a_round(run: Subject) -> int:
    """As many as asked for, or the pool's where all are: counted where it is at hand, else assumed."""
    return run.iteration.prompts or prompts_of_the_pool(run)


def prompts_of_the_pool(run: Subject) -> int:
    """Counted where it is at hand, else assumed."""
    return run.recipe.source.pool_size() or run.workload.pool_prompts


def candidates_of_a_prompt(run: Subject) -> int:
    """As many as are drawn; of a data set's responses as many as it says that it brings, else as would be drawn."""
    source = run.recipe.source
    if run.recipe.responses == "dataset" and isinstance(source, CountedSource):
        return source.responses_per_prompt
    return run.iteration.candidates


def stage_costs(run: Subject, shape: ModelShape) -> dict[str, Cost]:
    """The cost of one execution of each kind of stage that uses the policy, in the order of a round.

    And of ranking, where the ranker has a model of its own and its size is known. `uncounted` names what is left.
    """
    hardware, workload, iteration, recipe = run.hardware, run.workload, run.iteration, run.recipe
    trained_on = replace(hardware, devices=run.trainer.processes)
    prompts = prompts_of_a_round(run)
    pairs = prompts * workload.pairs_per_prompt
    row = workload.prompt_tokens + 2 * workload.completion_tokens
    costs: dict[str, Cost] = {}
    if recipe.prompts == "self_instruct":
        costs["prompts"] = _self_instruct_cost(run, shape)
    if recipe.responses == "generated":
        new_tokens = min(workload.completion_tokens, iteration.decoding.max_new_tokens)
        costs["candidates"] = decoding_cost(shape, hardware, workload, prompts, iteration.candidates, new_tokens)
    ranker = run.ranker
    if recipe.ranking == "ranker" and isinstance(ranker, ReadingRanker):
        reading = ranker.reading(
            prompts=prompts,
            candidates=candidates_of_a_prompt(run),
            prompt_tokens=workload.prompt_tokens,
            completion_tokens=workload.completion_tokens,
        )
        if reading is not None:
            costs["ranking"] = reading_cost(hardware, reading)
    if iteration.reference_logps == "model":
        costs["reference"] = forward_cost(shape, trained_on, pairs, row)
    trained = pairs * run.trainer.epochs
    costs["train"] = training_cost(shape, trained_on, workload, trained, run.trainer.gradient_checkpointing)
    if run.kl_prompts:
        costs["kl"] = _kl_cost(run, shape)
    for name, benchmark in run.benchmarks.items():
        costs[f"answers {name}"] = decoding_cost(
            shape, hardware, workload, benchmark.n_answers, 1, workload.answer_tokens
        )
    return costs


def _self_instruct_cost(run: Subject, shape: ModelShape) -> Cost:
    """For each new prompt its share of a list of demonstrations is read, and the rest of its tokens are written."""
    workload, generator = run.workload, run.recipe.self_instruct
    tokens = workload.self_instruct_tokens_per_prompt
    listed = generator.demonstrations / generator.tasks_per_call * workload.prompt_tokens if generator else 0
    read = min(round(listed), tokens - 1)
    lists = replace(workload, prompt_tokens=read)
    return decoding_cost(shape, run.hardware, lists, prompts_of_a_round(run), 1, tokens - read)


def _kl_cost(run: Subject, shape: ModelShape) -> Cost:
    """Of drawing completions and reading them with the policy, the one before it and the base model, on one device.

    In the first round the latter two are one; it is counted like the others.
    """
    workload, prompts = run.workload, min(run.kl_prompts, prompts_of_the_pool(run))
    new_tokens = min(workload.completion_tokens, run.iteration.decoding.max_new_tokens)
    drawn = decoding_cost(shape, run.hardware, workload, prompts, KL_COMPLETIONS, new_tokens)
    rows = 3 * prompts * KL_COMPLETIONS
    read = forward_cost(shape, replace(run.hardware, devices=1), rows, workload.prompt_tokens + new_tokens)
    return Cost(drawn.tokens + read.tokens, drawn.hours + read.hours)


def uncounted(run: Subject, costs: Mapping[str, Cost], events: Sequence[StageEvent]) -> list[str]:
    """The stages still to run that take devices, or may, and are not among `costs`."""
    read = {"prompts", "candidates"}  # those that are made, and not a data set's, are counted
    read |= set() if run.recipe.ranking == "ranker" else {"ranking"}
    known = read | {kind.partition(" ")[0] for kind in costs}
    return [
        stage for stage, kind in STAGES.items() if kind != "judging" and stage not in known and runs_of(stage, events)
    ]


def devices_held(run: Subject, kind: Kind) -> int:
    """The devices that a job holds while it makes stages of a kind.

    From its start to its end those of one node, or of all that training needs, whichever are more; by its resources
    those of one node while it does not train, and none while it judges.
    """
    resources = run.resources
    if kind == "judging" and resources.judging:
        return 0
    if kind == "training" or not resources.training:
        return max(run.hardware.devices, run.trainer.processes)
    return run.hardware.devices


def device_hours(run: Subject, costs: Mapping[str, Cost], events: Sequence[StageEvent]) -> float:
    """What a job holds while it makes the stages of `costs` that are still to run, in devices times hours."""
    return sum(
        runs_of(kind, events) * cost.hours * devices_held(run, STAGES[kind.partition(" ")[0]])
        for kind, cost in costs.items()
    )


def training_setup(run: Subject) -> TrainingSetup:
    """What the memory of training depends on."""
    trainer, filters = run.trainer, run.recipe.filters
    policy = run.model if isinstance(run.model, PolicyRef) else PolicyRef("a model built here", dtype="float32")
    if filters.max_prompt_tokens is None or filters.max_completion_tokens is None:
        longest = trainer.max_length or 2 * run.workload.completion_tokens + run.workload.prompt_tokens
    else:
        longest = filters.max_prompt_tokens + 2 * filters.max_completion_tokens
    return TrainingSetup(
        dtype=trainer.dtype or policy.dtype,
        sampled_dtype=policy.dtype,
        keep_masters=trainer.keep_masters,
        attn_implementation=policy.attn_implementation,
        processes=trainer.processes,
        sharded=trainer.strategy == "fsdp2",
        gradient_checkpointing=trainer.gradient_checkpointing,
        lora_rank=None if trainer.adapters is None else trainer.adapters.rank,
        longest_row=longest,
    )


@dataclass(frozen=True)
class JudgeLoad:
    """What one judge is asked in a run."""

    name: str
    requests: int
    dollars: float | None
    """None: the judge has no price."""
    source: str
    """Of the price."""


def judge_loads(run: Subject, events: Sequence[StageEvent]) -> Iterator[JudgeLoad]:
    """The main judge's requests for all judgments still to be made, those of each diagnostic judge whose replies are
    kept, as they cost something, and those of a ranker that asks a judge.

    Equal candidates are asked about once; they are counted as if all were different.
    """
    yield _judge_load(run, run.judge, _judge_requests(run, events))
    for label, judge in run.diagnostic_judges.items():
        if judge.keeps_replies:
            yield _judge_load(run, judge, _judge_requests(run, events, f" by {label}"))
    asked = run.ranker.judge if isinstance(run.ranker, JudgedRanker) else None
    if asked is not None and run.recipe.ranking == "ranker":
        requests = runs_of("ranking", events) * prompts_of_a_round(run) * candidates_of_a_prompt(run)
        yield _judge_load(run, asked, requests)


def _judge_requests(run: Subject, events: Sequence[StageEvent], whose: str = "") -> int:
    """Of a judge, whose stages say `whose` after the benchmark's name."""
    return sum(
        benchmark.n_judge_requests * runs_of(f"judgments {name}{whose}", events)
        for name, benchmark in run.benchmarks.items()
    )


def _judge_load(run: Subject, judge: Judge, requests: int) -> JudgeLoad:
    price = judge.price if isinstance(judge, Priced) else None
    if price is None:
        return JudgeLoad(judge.name, requests, None, "")
    dollars = requests * price.dollars(run.workload.judge_prompt_tokens, run.workload.judge_reply_tokens)
    return JudgeLoad(judge.name, requests, dollars, price.source)


@dataclass
class Totals:
    """Of all jobs of a sweep; a stage that several jobs need counts once."""

    jobs: int = 0
    stages: int = 0
    hours: float = 0.0
    """If the jobs run one after the other."""
    device_hours: float = 0.0
    unknown: int = 0
    """Jobs without an estimate, as their model's shape is unknown."""
    disk_gib: float = 0.0
    requests: int = 0
    dollars: float | None = None


def sweep_totals(jobs: Sequence[tuple[Subject, Sequence[StageEvent]]]) -> Totals:
    """Sums over a sweep's jobs, each with every stage that it would go through."""
    totals = Totals(jobs=len(jobs))
    for run, walked, events in own_stages(jobs):
        totals.stages += len(events)
        for load in judge_loads(run, events):
            totals.requests += load.requests
            if load.dollars is not None:
                totals.dollars = (totals.dollars or 0.0) + load.dollars
        shape = model_shape(run, walked)
        if shape is None:
            totals.unknown += 1
            continue
        costs = stage_costs(run, shape)
        totals.hours += sum(runs_of(kind, events) * cost.hours for kind, cost in costs.items())
        totals.device_hours += device_hours(run, costs, events)
        totals.disk_gib += runs_of("train", events) * policy_gib(shape, training_setup(run))
        totals.disk_gib += runs_of("average", events) * average_gib(shape)
    return totals


def own_stages(
    jobs: Sequence[tuple[Subject, Sequence[StageEvent]]],
) -> Iterator[tuple[Subject, Sequence[StageEvent], list[StageEvent]]]:
    """Each job with all its stages, and with those still to run that no job before it runs."""
    seen: set[tuple[str, str]] = set()
    for run, walked in jobs:
        events = [event for event in walked if (event.stage, event.fingerprint) not in seen]
        events = [event for event in events if event.outcome == "planned"]
        seen |= {(event.stage, event.fingerprint) for event in events}
        yield run, walked, events


def runs_of(kind: str, events: Sequence[StageEvent]) -> int:
    """How often a kind of `stage_costs` is still to run."""
    stage, space, benchmark = kind.partition(" ")
    ending = space + benchmark  # another benchmark's name may end like this one's
    return sum(event.outcome == "planned" and event.stage == stage and event.note.endswith(ending) for event in events)
