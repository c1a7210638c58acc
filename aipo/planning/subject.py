"""What a plan is made for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from aipo.artifacts import Store
from aipo.data.recipe import Recipe
from aipo.iteration import Iteration
from aipo.judges.judge import Judge
from aipo.models.policy import BaseModel, PolicyRef
from aipo.planning.costs import Hardware, Workload
from aipo.planning.resources import Resources
from aipo.training.settings import TrainingSettings


class Questions(Protocol):
    """A benchmark, as far as its size goes."""

    @property
    def n_answers(self) -> int: ...

    @property
    def n_judge_requests(self) -> int: ...


class Subject(Protocol):
    """The components of a job that its cost depends on."""

    @property
    def model(self) -> PolicyRef | BaseModel: ...

    @property
    def recipe(self) -> Recipe: ...

    @property
    def ranker(self) -> object: ...

    @property
    def iteration(self) -> Iteration: ...

    @property
    def starts_servers(self) -> bool: ...

    @property
    def kl_prompts(self) -> int: ...

    @property
    def trainer(self) -> TrainingSettings: ...

    @property
    def judge(self) -> Judge: ...

    @property
    def diagnostic_judges(self) -> Mapping[str, Judge]: ...

    @property
    def benchmarks(self) -> Mapping[str, Questions]: ...

    @property
    def store(self) -> Store: ...

    @property
    def hardware(self) -> Hardware: ...

    @property
    def workload(self) -> Workload: ...

    @property
    def resources(self) -> Resources: ...
