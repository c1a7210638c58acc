"""Whom a job would still ask. A stage that is done asks nobody, and neither does a judging whose replies are all kept:
for them a server may be down, and a key be gone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from aipo.artifacts import Artifact, PlanStore, StageReport
from aipo.components import HasNeeds
from aipo.jobs import Point
from aipo.judges import Judge, NotKept, ReplyStore
from aipo.models.policy import PolicyRef
from aipo.pipeline.run import Run
from aipo.pipeline.stages import Stages
from aipo.rankers.ranker import JudgedRanker

SAMPLER, RANKER, JUDGE = "sampler", "ranker", "judge"


def askable(run: Run) -> dict[str, Any]:
    """The components of a job that may send requests, by the names that `asked` gives."""
    # What a sampler needs does not depend on the weights: a policy that is still to be made stands for itself.
    policy = run.model if isinstance(run.model, PolicyRef) else PolicyRef("policy")
    found: dict[str, Any] = {SAMPLER: run.sampler(policy=policy)}
    if run.recipe.ranking == "ranker" and isinstance(run.ranker, JudgedRanker) and run.ranker.judge is not None:
        found[RANKER] = run.ranker
    if any(benchmark.uses_judge for benchmark in run.benchmarks.values()):
        found |= {JUDGE: run.judge, **{f"{JUDGE} {name}": judge for name, judge in run.diagnostic_judges.items()}}
    return found


def asked(run: Run, loop: Callable[[Stages], Iterable[Point]], known: dict[str, bool] | None = None) -> frozenset[str]:
    """Which of `askable(run)` the stages to come would send a request to. Sends none, runs nothing, writes nothing.

    A judging is known to need nobody only once its answers are there: then its requests are compared with the kept
    replies. All are named where it cannot be told, as something else is missing or changed. `known` keeps what was
    found out about each judging, for the jobs of one sweep.
    """
    everyone = askable(run)
    if not any(isinstance(component, HasNeeds) for component in everyone.values()):
        return frozenset(everyone)
    seen = Foreseen(run, everyone, {} if known is None else known)
    try:
        for _ in loop(seen):
            if seen.asked == everyone.keys():
                break
    except Exception:  # what a component cannot say of itself while its files are missing may raise anything
        return frozenset(everyone)
    return frozenset(seen.asked)


class Foreseen(Stages):
    """The stages of a job, none of which runs: notes who would be asked."""

    def __init__(self, run: Run, everyone: Mapping[str, Any], known: dict[str, bool]) -> None:
        super().__init__(replace(run, store=PlanStore.of(run.store)))
        self._there: set[str] = set()
        """Fingerprints of what is in the store or its remote one."""
        self.store.listeners.append(
            lambda told: self._there.add(told.fingerprint) if told.outcome == "cached" else None
        )
        self.replies = ReplyStore(run.store.root, run.store.lock, asks=False)
        self.asked: set[str] = set()
        self._everyone = everyone
        self._known = known
        draws = {"answers", "kl"}
        draws |= {"prompts"} if self.recipe.prompts == "self_instruct" else set()
        draws |= {"candidates"} if self.recipe.responses == "generated" else set()
        self._askers = {stage: SAMPLER for stage in draws} | {"proxy": RANKER}
        if run.ranker.gives_win_probability:
            self._askers["pairs"] = RANKER

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
        """What stages of this kind ask for where they have to run."""
        artifact = super().make(stage, content, parents, build, iteration, resumable=resumable, name=name)
        if stage in self._askers and artifact.fingerprint not in self._there:
            self._ask(self._askers[stage])
        return artifact

    def ranking(self, candidates: Artifact, iteration: int) -> Artifact:
        """The ranker's judge, unless it has said all that is asked."""
        artifact = super().ranking(candidates, iteration)
        if (ranker := self._everyone.get(RANKER)) is not None:
            self._judging(RANKER, ranker.judge, artifact, [candidates], lambda: self.ranked(candidates))
        return artifact

    def judgments(
        self, benchmark: str, judge: Judge, answers: Artifact, baseline: Artifact | None, iteration: int, label: str
    ) -> Artifact:
        """The judge, likewise."""
        artifact = super().judgments(benchmark, judge, answers, baseline, iteration, label)
        parents = [answers] if baseline is None else [answers, baseline]
        names = [name for name, component in self._everyone.items() if component is judge]
        for name in names:
            self._judging(name, judge, artifact, parents, lambda: self.judged(benchmark, judge, answers, baseline))
        return artifact

    def _judging(
        self, name: str, judge: Judge, artifact: Artifact, parents: Iterable[Artifact], again: Callable[[], object]
    ) -> None:
        if name in self.asked or artifact.fingerprint in self._there or not isinstance(self._everyone[name], HasNeeds):
            return
        if artifact.fingerprint not in self._known:
            told = judge.keeps_replies and all(parent.path.exists() for parent in parents)
            self._known[artifact.fingerprint] = not told or _asks(again)
        if self._known[artifact.fingerprint]:
            self._ask(name)

    def _ask(self, name: str) -> None:
        if name in self._everyone:
            self.asked.add(name)


def _asks(judging: Callable[[], object]) -> bool:
    """Whether a judging that may use kept replies alone lacks one."""
    try:
        judging()
    except NotKept:
        return True
    except Exception:  # it reads what is kept and fails: so will the stage, without a request, and say why
        return False
    return False
