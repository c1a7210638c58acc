"""Every stage of the loop: what shapes its content, which artifacts it reads, which one it writes.

A stage method never reads an artifact outside its `build`, so the same methods plan a run without executing it. All
data goes one way: prompts -> candidates -> ranking -> pairs -> reference -> train -> answers -> judgments -> scores.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from aipo.artifacts import Artifact, StageReport, fingerprint
from aipo.data.context import fit_context, leaves_room
from aipo.data.counts import completion_counts
from aipo.data.source import load_pool
from aipo.judges import Judge, ReplyStore, judged
from aipo.models.policy import PolicyRef
from aipo.pipeline.answers import optional_answers, read_answers
from aipo.pipeline.draws import derived_seed, slice_of_pool
from aipo.pipeline.kinds import BESIDE_A_SERVER, LOADED, VERSIONS, ranker_content, self_instruct_content, without_place
from aipo.pipeline.run import Run
from aipo.pipeline.serving import Serving
from aipo.rankers.ranker import JudgedRanker, Ranker
from aipo.rankers.ranking import informed, rank, recalled, with_win_probabilities, with_win_shares
from aipo.records import (
    Candidates,
    Example,
    Judgment,
    Pair,
    Prompt,
    RankedPrompt,
    WinProbabilities,
    from_row,
    read_jsonl,
    read_parquet,
    to_row,
    write_jsonl,
    write_parquet,
)
from aipo.samplers.sampler import KeepingSampler, Sampler


@dataclass(frozen=True)
class Policy:
    """A model at some point of the loop. `iteration` is -1 for the base model, t after round t."""

    ref: PolicyRef
    fingerprint: str
    iteration: int


CHANCES = "chances.parquet"
"""What a ranker that compares candidates leaves beside its scores: no pair is asked about again."""
DRAWN = "drawn"
"""Where a stage keeps completions while it draws more; gone when it is complete."""


class Stages:
    """The stages of one job. `log_step` receives each training step."""

    def __init__(self, run: Run, log_step: Callable[[Mapping[str, Any]], None] = lambda step: None) -> None:
        self.run = run
        self.store = run.store
        self.replies = ReplyStore(run.store.root, run.store.lock, run.store.mirror)
        self.seed = run.seed
        self.recipe = run.recipe
        self.iteration = run.iteration
        self.log_step = log_step
        self.serving = Serving(run.sampler)

    def sampler(self, policy: Policy, folder: Path) -> Sampler:
        """The policy's sampler for the build of a stage in `folder`."""
        sampler = self.serving.sampler(policy.ref, policy.fingerprint)
        return sampler.keeping(folder / DRAWN) if isinstance(sampler, KeepingSampler) else sampler

    def base_model(self) -> Policy:
        """The policy everything starts from: built here (the miniature) or found in a folder or on the hub."""
        model = self.run.model
        settings, identity = dict(self.run.content["model"]), dict(model.identity())
        content = {"model": settings, "identity": identity}
        if isinstance(model, PolicyRef):
            if identity:  # a folder of this machine: what it holds counts, not where it lies
                del settings["path"]
            digest = fingerprint("base_model", VERSIONS["base_model"], content, {})
            return Policy(replace(model, shape=None), digest, -1)

        def build(folder: Path) -> StageReport:
            return StageReport(counts=model.build(folder / "model"))

        artifact = self.make("base_model", content, {}, build, -1)
        return Policy(PolicyRef(str(artifact.path / "model")), artifact.fingerprint, -1)

    def pool(self) -> Artifact:
        """All prompts of the source, with the responses and ratings that come with them."""
        source = self.recipe.source

        def build(folder: Path) -> StageReport:
            examples, dropped = load_pool(source)
            write_parquet(folder / "pool.parquet", examples)
            return StageReport({"prompts": len(examples)}, dropped)

        identity = dict(source.identity())
        content = {"source": without_place(self.run.content["data"]["source"], identity), "identity": identity}
        return self.make("pool", content, {}, build, -1)

    def prompts(self, pool: Artifact, policy: Policy, iteration: int) -> Artifact:
        """P prompts of this round: the next slice of the shuffled pool, or new ones by Self-Instruct."""
        wanted = self.iteration.prompts
        content: dict[str, Any] = {
            "prompts": self.recipe.prompts,
            "count": wanted,
            "seed": self.seed,
            "iteration": iteration,
        }
        parents = {"pool": pool.fingerprint}
        if self.recipe.prompts == "self_instruct":
            content |= self_instruct_content(self.run)
            content["sampler"] = self.run.content["sampler"]
            parents["policy"] = policy.fingerprint

        def build(folder: Path) -> StageReport:
            examples = [example.prompt for example in read_parquet(pool.path / "pool.parquet", Example)]
            if self.recipe.prompts == "self_instruct":
                assert wanted is not None and self.recipe.self_instruct is not None  # the check refuses it
                seed, fits = derived_seed(self.seed, "self_instruct", iteration), leaves_room(policy.ref)
                chosen, dropped = self.recipe.self_instruct.generate(
                    self.sampler(policy, folder), examples, n=wanted, seed=seed, fits=fits
                )
            else:
                chosen, dropped = slice_of_pool(examples, wanted, self.seed, iteration), {}
            write_parquet(folder / "prompts.parquet", chosen)
            return StageReport({"prompts": len(chosen)}, dropped)

        return self.make("prompts", content, parents, build, iteration, resumable=True)

    def candidates(self, pool: Artifact, prompts: Artifact, policy: Policy, iteration: int) -> Artifact:
        """N completions per prompt from the current policy, or the responses the data set brings."""
        generated = self.recipe.responses == "generated"
        content: dict[str, Any] = {"responses": self.recipe.responses}
        parents = {"prompts": prompts.fingerprint, "policy": policy.fingerprint}
        if generated:
            content |= {
                "sampler": self.run.content["sampler"],
                "decoding": self.run.content["iteration"]["decoding"],
                "candidates": self.iteration.candidates,
                "seed": self.seed,
                "iteration": iteration,
            }
        else:
            parents["pool"] = pool.fingerprint

        def build(folder: Path) -> StageReport:
            rows = read_parquet(prompts.path / "prompts.parquet", Prompt)
            if generated:
                rows, dropped = fit_context(rows, policy.ref)
                completions = self.sampler(policy, folder).sample(
                    [row.chat for row in rows],
                    self.iteration.decoding,
                    n=self.iteration.candidates,
                    seed=derived_seed(self.seed, "candidates", iteration),
                )
                found = [Candidates(row, tuple(group)) for row, group in zip(rows, completions, strict=True)]
            else:
                found, dropped = self.recipe.dataset_candidates(
                    rows, read_parquet(pool.path / "pool.parquet", Example), policy.ref.load_tokenizer()
                )
            write_parquet(folder / "candidates.parquet", found)
            return StageReport(completion_counts(found), dropped)

        return self.make("candidates", content, parents, build, iteration, resumable=True)

    def ranking(self, candidates: Artifact, iteration: int) -> Artifact:
        """A score for every candidate."""
        by_ranker = self.recipe.ranking == "ranker"

        def build(folder: Path) -> StageReport:
            ranked, chances = self.ranked(candidates)
            if chances:
                write_parquet(folder / CHANCES, chances)
            write_parquet(folder / "ranking.parquet", ranked)
            return StageReport({"prompts": len(ranked)})

        content = ranker_content(self.run) if by_ranker else {"ranker": "dataset"}
        return self.make("ranking", content, {"candidates": candidates.fingerprint}, build, iteration, resumable=True)

    def ranked(self, candidates: Artifact) -> tuple[list[RankedPrompt], list[WinProbabilities]]:
        """The scores themselves, by the ranker or as the data set brings them, and what it learned on the way."""
        rows = read_parquet(candidates.path / "candidates.parquet", Candidates)
        if self.recipe.ranking == "ranker":
            return rank(informed(self.ranker, [row.prompt for row in rows]), rows)
        return [RankedPrompt(row.prompt.prompt_id, row.scores or ()) for row in rows], []

    @property
    def ranker(self) -> Ranker:
        """The run's; one that asks a judge keeps every reply."""
        ranker = self.run.ranker
        return ranker.stored(self.replies) if isinstance(ranker, JudgedRanker) else ranker

    def pairs(self, candidates: Artifact, ranking: Artifact, policy: Policy, iteration: int) -> Artifact:
        """Two candidates of every prompt, as token ids; every drop is counted by its reason.

        Win shares cost comparisons, so they are there only where the objective uses them: in pairs of its own.
        """
        shares = self.run.objective.uses_win_shares
        content = {key: self.run.content["data"][key] for key in ("filters", "selection")}
        content |= {"win_shares": True} if shares else {}
        parents = {"candidates": candidates.fingerprint, "ranking": ranking.fingerprint, "policy": policy.fingerprint}

        def build(folder: Path) -> StageReport:
            from aipo.data.pairs import build_pairs, require_pairs

            rows = read_parquet(candidates.path / "candidates.parquet", Candidates)
            ranked = read_parquet(ranking.path / "ranking.parquet", RankedPrompt)
            scored = [replace(row, scores=found.scores) for row, found in zip(rows, ranked, strict=True)]
            built = build_pairs(scored, policy.ref.load_tokenizer(), self.recipe.filters, self.recipe.selection)
            require_pairs(built)
            pairs = built.pairs
            if self.recipe.ranking == "ranker":
                ranker = recalled(informed(self.ranker, [row.prompt for row in rows]), rows, ranking.path / CHANCES)
                chats = {row.prompt.prompt_id: row.prompt.chat for row in rows}
                pairs = with_win_probabilities(ranker, pairs, chats)
                if shares:
                    pairs = with_win_shares(ranker, pairs, {row.prompt.prompt_id: row for row in rows})
            write_parquet(folder / "pairs.parquet", pairs)
            return StageReport({"pairs": len(pairs), **built.lengths()}, built.dropped)

        return self.make("pairs", content, parents, build, iteration)

    def reference(self, pairs: Artifact, reference: Policy, iteration: int) -> Artifact:
        """The reference policy's log-probs of every pair: one artifact for all objectives of a sweep."""
        drawn = self.iteration.reference_logps == "sampler"

        def build(folder: Path) -> StageReport:
            from aipo.training.reference import sampler_reference_logps

            found = read_parquet(pairs.path / "pairs.parquet", Pair)
            if drawn:
                rows = sampler_reference_logps(found)
            else:
                rows = self.run.trainer.reference(policy=reference.ref, pairs=found, out=folder)
            write_parquet(folder / "reference.parquet", rows)
            agreeing = sum(row.chosen > row.rejected for row in rows)
            return StageReport({"pairs": len(rows), "agreement": agreeing / len(rows)})

        parents = {"pairs": pairs.fingerprint, "policy": reference.fingerprint}
        content = {"logps": "sampler"} if drawn else self.run.trainer.reference_settings()
        content |= {"sample": True} if self.run.objective.uses_sample else {}  # never in an artifact of before
        return self.make("reference", content, parents, build, iteration)

    def train(self, policy: Policy, pairs: Artifact, reference: Artifact, iteration: int) -> tuple[Policy, Artifact]:
        """The policy after this round. The objective enters here and nowhere else."""
        objective = self.run.content["objective"]
        content = {"objective": objective, "trainer": self.run.content["trainer"], "seed": self.seed}
        parents = {"policy": policy.fingerprint, "pairs": pairs.fingerprint, "reference": reference.fingerprint}

        def build(folder: Path) -> StageReport:
            from aipo.records import ReferenceLogps

            summary = self.run.trainer.run(
                policy=policy.ref,
                pairs=read_parquet(pairs.path / "pairs.parquet", Pair),
                reference=read_parquet(reference.path / "reference.parquet", ReferenceLogps),
                objective_config=objective,
                out=folder,
                seed=self.seed,
                log=lambda step: self.log_step({"iteration": iteration, **step}),
            )
            return StageReport(counts=dict(summary), scratch=("checkpoints", "launch"))

        artifact = self.make("train", content, parents, build, iteration, resumable=True)
        if not artifact.executed and (artifact.path / "metrics.jsonl").exists():
            for row in read_jsonl(artifact.path / "metrics.jsonl"):
                self.log_step({"iteration": iteration, **row})
        trained = self.run.trainer.trained(policy.ref, artifact.path)
        return Policy(trained, artifact.fingerprint, iteration), artifact

    def average(self, average: Policy, policy: Policy) -> Policy:
        """The moving average of the policies, one policy further on."""
        from aipo.training.weights.average import averaged, write_average

        decay = self.iteration.ema_decay

        def build(folder: Path) -> StageReport:
            write_average(average.ref, policy.ref, decay, folder)
            return StageReport({"decay": decay})

        parents = {"average": average.fingerprint, "policy": policy.fingerprint}
        artifact = self.make("average", {"decay": decay}, parents, build, policy.iteration)
        return Policy(averaged(policy.ref, artifact.path), artifact.fingerprint, policy.iteration)

    def answers(self, benchmark: str, policy: Policy) -> Artifact:
        """The policy's answers to a benchmark's questions."""

        def build(folder: Path) -> StageReport:
            component = self.run.benchmarks[benchmark]
            answers = component.answer(self.sampler(policy, folder), seed=derived_seed(self.seed, benchmark, 0))
            write_parquet(folder / "answers.parquet", answers)
            turns = [turn for answer in answers for turn in answer.turns]
            return StageReport({"answers": len(answers), "truncated": sum(t.finish == "length" for t in turns)})

        answering = dict(self.run.benchmark_content(benchmark).answering)
        content = {"benchmark": answering, "sampler": self.run.content["sampler"], "seed": self.seed}
        parents = {"policy": policy.fingerprint}
        return self.make("answers", content, parents, build, policy.iteration, resumable=True, name=benchmark)

    def judgments(
        self,
        benchmark: str,
        judge: Judge,
        answers: Artifact,
        baseline: Artifact | None,
        iteration: int,
        label: str,
    ) -> Artifact:
        """A judge's verdicts, with its raw replies. `label` names benchmark and judge on the console."""
        parents = {"answers": answers.fingerprint} | ({"baseline": baseline.fingerprint} if baseline else {})

        def build(folder: Path) -> StageReport:
            judgments = self.judged(benchmark, judge, answers, baseline)
            write_jsonl(folder / "judgments.jsonl", judgments)
            unscored = sum(judgment.value is None for judgment in judgments)
            return StageReport({"judgments": len(judgments), "unscored": unscored})

        content = {
            "benchmark": dict(self.run.benchmark_content(benchmark).judging),
            "judge": {"name": judge.name, "class": type(judge).__name__},
            "identity": dict(judge.identity()),
            "asks_per_verdict": judge.asks_per_verdict,
        }
        return self.make("judgments", content, parents, build, iteration, resumable=True, name=label)

    def judged(self, benchmark: str, judge: Judge, answers: Artifact, baseline: Artifact | None) -> list[Judgment]:
        """The verdicts themselves. Only replies that are not kept are asked for."""
        component, ours, theirs = self.run.benchmarks[benchmark], read_answers(answers), optional_answers(baseline)
        return judged(judge, self.replies, lambda asked: component.judge(ours, asked, baseline=theirs))

    def scores(
        self,
        benchmark: str,
        answers: Artifact,
        judgments: Artifact | None,
        baseline: Artifact | None,
        iteration: int,
        label: str,
    ) -> Artifact:
        """A benchmark's numbers. `judgments` is None for a benchmark that grades by itself."""
        parents = {"answers": answers.fingerprint} | ({"judgments": judgments.fingerprint} if judgments else {})
        parents |= {"baseline": baseline.fingerprint} if baseline else {}

        def build(folder: Path) -> StageReport:
            rows = []
            if judgments is not None:
                rows = [from_row(Judgment, row) for row in read_jsonl(judgments.path / "judgments.jsonl")]
            component = self.run.benchmarks[benchmark]
            metrics = component.score(read_answers(answers), rows, baseline=optional_answers(baseline))
            (folder / "metrics.json").write_text(json.dumps(to_row(metrics), indent=1), encoding="utf-8")
            write_parquet(folder / "questions.parquet", component.question_scores(read_answers(answers), rows))
            return StageReport({metric.name: metric.value for metric in metrics})

        content = {"benchmark": dict(self.run.benchmark_content(benchmark).scoring)}
        return self.make("scores", content, parents, build, iteration, name=label)

    def make(
        self,
        stage: str,
        content: Mapping[str, Any],
        parents: Mapping[str, str],
        build: Callable[[Path], StageReport],
        iteration: int,
        *,
        resumable: bool = False,
        name: str = "",
    ) -> Artifact:
        label = "base" if iteration < 0 else f"iter {iteration}"

        def build_alone(folder: Path) -> StageReport:
            from aipo.training.memory import release_cached_memory

            if stage not in BESIDE_A_SERVER and stage != "kl":  # which stops it once it has drawn
                self.serving.stop()
            release_cached_memory()  # the model of the stage before; training may run in processes of its own
            report = build(folder)
            return replace(report, scratch=(*report.scratch, DRAWN)) if (folder / DRAWN).exists() else report

        return self.store.run(
            stage,
            version=VERSIONS[stage],
            config=content,
            parents=parents,
            build=build_alone,
            resumable=resumable,
            verify=LOADED.get(stage, ()),
            note=f"{label} {name}".strip(),
        )
