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


def load_pool(source: Source) -> tuple[list[Example], dict[str, int]]:
    """What `source` gives. ValueError where that is no prompt at all, or two prompts have one id.

    Responses, scores and chats are looked up by the id: of two prompts with one, each would get those of the last.
    """
    examples, dropped = source.load()
    if not examples:
        raise ValueError(f"the source gave no prompt at all; dropped: {dropped or 'nothing'}")
    places: dict[str, int] = {}
    for place, example in enumerate(examples, start=1):
        earlier = places.setdefault(example.prompt.prompt_id, place)
        if earlier != place:
            raise ValueError(
                f"data.source: expected a prompt_id of its own for every prompt, got {example.prompt.prompt_id!r} for "
                f"prompts {earlier} and {place} of the pool; give one another id, or drop one if both are the same"
            )
    return examples, dropped


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
