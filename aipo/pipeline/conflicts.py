"""Choices that are fine by themselves and cannot work together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from aipo.benchmarks.benchmark import Benchmark
from aipo.components import build_component
from aipo.data.local import SourceError
from aipo.data.recipe import Recipe
from aipo.data.source import ConstrainedSource, Source
from aipo.iteration import Iteration
from aipo.judges import NoJudge
from aipo.miniature.shipped import knows_world
from aipo.models.policy import PolicyRef
from aipo.objectives import Objective
from aipo.pipeline.run import has_usual_kl
from aipo.rankers.ranker import InformedRanker, Ranker
from aipo.samplers.sampler import Sampler
from aipo.training.trainer import Trainer

MINIATURE = {
    "trainer.learning_rate": 3e-4,
    "iteration.decoding.temperature": 1.0,
    "iteration.decoding.top_k": 0,
    "iteration.decoding.max_new_tokens": 256,
}
"""Values of conf/trainer/miniature.yaml and conf/iteration/miniature.yaml that suit a model of 0.1 M weights alone."""


def conflicts(config: Mapping[str, Any]) -> Iterator[str]:
    """What the components of a config, each of them sound, cannot do with one another."""
    recipe: Recipe = build_component(config["data"])
    iteration: Iteration = build_component(config["iteration"])
    objective: Objective = build_component(config["objective"])
    ranker: Ranker = build_component(config["ranker"])
    trainer: Trainer = build_component(config["trainer"])
    yield from _truth(config, recipe)
    yield from _real_model(config)
    yield from _judge(config)
    yield from _constraints(ranker, recipe)
    yield from _objective(objective, recipe, ranker, config["ranker"]["_target_"])
    sampler: Sampler = build_component(config["sampler"])(policy=PolicyRef("policy"))
    yield from _offline(recipe, config["data"]["source"]["_target_"])
    yield from _sampled_reference(objective, recipe, iteration, sampler)
    yield from _decoding(config, recipe, iteration, sampler)
    yield from _half_precision(config, trainer)
    yield from _sizes(config, recipe, iteration)
    yield from _lengths(recipe, iteration, trainer)
    if trainer.evaluate_every_steps and not trainer.evaluation_share:
        yield (
            f"trainer.evaluate_every_steps={trainer.evaluate_every_steps} evaluates held-out pairs, and "
            f"trainer.evaluation_share={trainer.evaluation_share:g} holds out none; raise it, for example to 0.1"
        )


def _truth(config: Mapping[str, Any], recipe: Recipe) -> Iterator[str]:
    if recipe.source.is_world:
        return
    truth = [("ranker", config["ranker"])]
    if _judged(config):
        truth += [("judge", config["judge"])]
        truth += [(f"diagnostic_judge.{name}", node) for name, node in (config["diagnostic_judge"] or {}).items()]
    truth += [(f"benchmark.{name}", node) for name, node in (config["benchmark"] or {}).items()]
    for path, node in truth:
        if build_component(node).needs_world:
            yield (
                f"{path}: {node['_target_']} knows the truth of the miniature's world only, but data.source is "
                f"{config['data']['source']['_target_']}; choose another {path.split('.')[0]}"
            )


def _judged(config: Mapping[str, Any]) -> list[str]:
    """The benchmarks that ask a judge. Where none does, the judge is never called, whichever it is."""
    return [name for name, node in (config["benchmark"] or {}).items() if build_component(node).uses_judge]


def _judge(config: Mapping[str, Any]) -> Iterator[str]:
    if not (asking := _judged(config)):
        return
    if isinstance(build_component(config["judge"]), NoJudge):
        yield f"judge=none answers nothing, but benchmark {', '.join(asking)} asks a judge; choose one from conf/judge"
    for name, node in (config["diagnostic_judge"] or {}).items():
        if isinstance(build_component(node), NoJudge):
            yield f"diagnostic_judge.{name} answers nothing, but benchmark {', '.join(asking)} asks it; take it out"


def _real_model(config: Mapping[str, Any]) -> Iterator[str]:
    """A model with another vocabulary than the miniature's cannot answer the toy world's questions.

    A torn config.json is told here: plans read it, too.
    """
    model = build_component(config["model"])
    if not isinstance(model, PolicyRef):
        return
    if problem := model.config_problem():
        yield f"model: {problem}"
    if knows_world(model):
        return
    source: Source = build_component(config["data"]["source"])
    toys = [("data.source", config["data"]["source"])] if source.is_world else []
    for name, node in (config["benchmark"] or {}).items():
        benchmark: Benchmark = build_component(node)
        toys += [(f"benchmark.{name}", node)] if benchmark.needs_world else []
    for path, node in toys:
        yield (
            f"{path}: {node['_target_']} asks about the miniature's world, which the model {model.path} has never "
            "read of; choose a scale for real models (scale=laptop, single_gpu or paper), or model=miniature"
        )
    if all(_value(config, path) == value for path, value in MINIATURE.items()):
        inherited = ", ".join(f"{path}={value:g}" for path, value in MINIATURE.items())
        yield (
            f"model {model.path} would be trained and sampled with the miniature's settings ({inherited}); choose a "
            "scale for real models (scale=laptop, single_gpu or paper), or set one of these yourself"
        )


def _value(config: Mapping[str, Any], path: str) -> Any:
    for key in path.split("."):
        config = config[key]
    return config


def _constraints(ranker: Ranker, recipe: Recipe) -> Iterator[str]:
    if not (isinstance(ranker, InformedRanker) and ranker.needs_constraints) or recipe.ranking != "ranker":
        return
    if recipe.prompts == "self_instruct":
        yield (
            f"ranker {ranker.name} checks constraints, which new prompts (data.prompts=self_instruct) do not bring; "
            "choose data=pairrm_gen_uf, or another ranker"
        )
    elif not (isinstance(recipe.source, ConstrainedSource) and recipe.source.brings_constraints):
        yield (
            f"ranker {ranker.name} checks constraints, which data.source does not bring; choose data/source=constraints"
        )


def _objective(objective: Objective, recipe: Recipe, ranker: Ranker, target: str) -> Iterator[str]:
    if not (objective.uses_win_probability or objective.uses_win_shares):
        return
    if recipe.ranking != "ranker":
        yield f"objective {objective.name} needs the ranker's win probability, but data.ranking is {recipe.ranking!r}"
    elif not ranker.gives_win_probability:
        yield (
            f"objective {objective.name} needs the ranker's win probability, which {target} "
            "does not give with these settings; choose ranker=pairrm, a Bradley-Terry reward model, verifiable or proxy"
        )


def _offline(recipe: Recipe, target: str) -> Iterator[str]:
    if recipe.responses == "dataset" and not recipe.source.brings_responses:
        yield (
            f"data.responses=dataset takes two responses to a prompt, which data.source ({target}) does not bring; "
            "choose data=pairrm_gen_uf, whose responses are the policy's own, or another source"
        )
    elif recipe.ranking == "dataset" and not recipe.source.brings_ratings:
        yield (
            f"data.ranking=dataset takes the ratings of responses, which data.source ({target}) does not bring; "
            "choose data=pairrm_uf, whose ranking is the ranker's, or another source"
        )


def _sampled_reference(objective: Objective, recipe: Recipe, iteration: Iteration, sampler: Sampler) -> Iterator[str]:
    if iteration.reference_logps != "sampler":
        return
    drawn = "iteration.reference_logps=sampler"
    if recipe.responses != "generated":
        yield f"{drawn}: with data.responses={recipe.responses} no policy draws completions; choose model"
    elif not sampler.notes_logps:
        yield f"{drawn}: this sampler notes no log-probs; choose sampler=hf, sampler.protocol.logprobs=true, or model"
    if objective.uses_prefix:
        yield f"{drawn}: objective {objective.name} needs log-probs of prefixes, which no sampler notes; choose model"
    if objective.uses_sample:
        yield f"{drawn}: objective {objective.name} needs log-probs of tokens, which no sampler notes; choose model"


def _decoding(config: Mapping[str, Any], recipe: Recipe, iteration: Iteration, sampler: Sampler) -> Iterator[str]:
    if sampler.takes_top_k:
        return
    decodings = {"iteration.decoding": iteration.decoding} if recipe.responses == "generated" else {}
    if recipe.prompts == "self_instruct" and recipe.self_instruct is not None:
        decodings["data.self_instruct.decoding"] = recipe.self_instruct.decoding
    limited = [f"{path}.top_k={decoding.top_k}" for path, decoding in decodings.items() if decoding.top_k]
    for name, node in (config["benchmark"] or {}).items():
        benchmark: Benchmark = build_component(node)
        top = max((decoding.top_k for decoding in benchmark.decodings), default=0)
        limited += [f"benchmark.{name}: top_k={top}"] if top else []
    if limited:
        yield (
            f"{', '.join(limited)}: this sampler's server is not known to take top_k; set it to 0, or "
            "sampler.protocol.takes_top_k=true where it is"
        )


def _half_precision(config: Mapping[str, Any], trainer: Trainer) -> Iterator[str]:
    model = build_component(config["model"])
    if isinstance(model, PolicyRef) and model.dtype == "float16" and trainer.dtype is None:
        yield (
            "model.dtype=float16: training in float16 is not supported (its range needs loss scaling); set "
            "model.dtype=bfloat16, or trainer.dtype=float32, which trains in float32 what is sampled in float16"
        )


def _sizes(config: Mapping[str, Any], recipe: Recipe, iteration: Iteration) -> Iterator[str]:
    if recipe.responses == "generated" and iteration.candidates < 2:
        yield f"iteration.candidates: a pair needs at least 2 candidates, got {iteration.candidates}"
    if recipe.prompts == "self_instruct" and iteration.prompts is None:
        yield "iteration.prompts: null is the whole pool, but data.prompts=self_instruct makes new ones; give a number"
    try:
        pool = recipe.source.pool_size()
    except SourceError as error:
        yield str(error)
        return
    if pool is None:  # known when the data set is here; the pool's stage then tells
        return
    if recipe.prompts == "pool" and (iteration.prompts or 0) > pool:
        yield f"iteration.prompts={iteration.prompts} asks for more than the {pool} prompts of data.source; lower it"
    if config["kl_prompts"] > pool and not has_usual_kl(config):  # the usual number takes what there is, and says so
        yield f"kl_prompts={config['kl_prompts']} asks for more than the {pool} prompts of data.source; lower it"
    if recipe.prompts == "self_instruct" and recipe.self_instruct is not None:
        shown = recipe.self_instruct.demonstrations
        if shown > pool:
            yield f"data.self_instruct.demonstrations={shown} is more than the {pool} prompts of data.source; lower it"
        clusters = recipe.self_instruct.clusters
        if clusters is not None and clusters.n_clusters > pool:
            yield (
                f"data.self_instruct.clusters.n_clusters={clusters.n_clusters} is more than the {pool} prompts of "
                "data.source; lower it"
            )


def _lengths(recipe: Recipe, iteration: Iteration, trainer: Trainer) -> Iterator[str]:
    """A pair that is longer than the trainer takes ends a run, after everything before it was paid for."""
    filters = recipe.filters
    # The filter does not count the end-of-turn token, which the trainer does.
    completion = None if filters.max_completion_tokens is None else filters.max_completion_tokens + 1
    if recipe.responses == "generated":
        drawn = iteration.decoding.max_new_tokens
        completion = drawn if completion is None else min(completion, drawn)
    if trainer.max_length is None or completion is None:
        return
    longest = (filters.max_prompt_tokens or 1) + completion
    if longest > trainer.max_length:
        yield (
            f"trainer.max_length={trainer.max_length}: data.filters and iteration.decoding let pairs of {longest} "
            "tokens through (prompt and completion), and a longer pair than max_length ends the run; raise it, or "
            "lower data.filters.max_prompt_tokens or max_completion_tokens"
        )
