"""Sources: where pool prompts, and the offline responses that come with them, are read from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

from aipo.records import Example


class Source(Protocol):
    """A pool of prompts with offline responses, as UltraFeedback is one."""

    @property
    def is_world(self) -> bool:
        """True when the prompts come from the miniature's world, whose truth some rankers and judges need."""
        ...

    @property
    def brings_responses(self) -> bool:
        """True when prompts come with at least two responses, or where only a download could tell."""
        ...

    @property
    def brings_ratings(self) -> bool:
        """Likewise, when those responses are rated."""
        ...

    def identity(self) -> Mapping[str, str]:
        """What pins the content beyond the configuration: hashes of local files, for example. Enters fingerprints."""
        ...

    def pool_size(self) -> int | None:
        """How many prompts `load` gives, at most; None where only a download could tell. Quick, for the check of a
        config. SourceError where the settings ask for more than there is."""
        ...

    def load(self) -> tuple[list[Example], dict[str, int]]:
        """All examples in a fixed order, and how many rows were dropped for which reason."""
        ...


@runtime_checkable
class CountedSource(Source, Protocol):
    """A source that says how many responses its prompts bring, for the plan."""

    @property
    def responses_per_prompt(self) -> int:
        """Of nearly every prompt."""
        ...


@runtime_checkable
class ConstrainedSource(Source, Protocol):
    """A source that says whether its prompts bring constraints that code can check."""

    @property
    def brings_constraints(self) -> bool:
        """True when every prompt has them (`Prompt.meta`, `aipo.constraints`)."""
        ...
