"""What tells the jobs of one objective apart, beside the seed: the settings in which they differ.

Computed from what jobs compute, not from what was typed: settings that shape no number (trackers, folders, batch
sizes) are not in a job's record and so never split a series.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from aipo.jobs import JobRecord

REPLICATES = ("seed", "model.seed")
"""Settings that make a repetition, not a variant: the job's seed, and that of the miniature's base model."""
CONTINUED = ("iteration.iterations", "kl_prompts")
"""More rounds go on from the same points; and what is measured beside leaves the policies as they are."""


def variants(records: Sequence[JobRecord]) -> list[tuple[str, ...]]:
    """Per job, sorted `key=value` items in which it differs from another; an objective's own settings are compared
    among the jobs of that objective. Where jobs chose different options of a config group, the option's name stands
    for all its settings."""
    found: list[list[str]] = [[] for _ in records]
    groups = sorted({group for record in records for group in record.settings})
    for group in groups:
        if group == "objective":
            for name in {record.objective for record in records}:
                among = [index for index, record in enumerate(records) if record.objective == name]
                _compare(group, [records[index].settings.get(group) for index in among], [found[i] for i in among])
            continue
        choices = [record.choices.get(group, "") for record in records]
        nodes = [record.settings.get(group) for record in records]
        if len(set(choices)) == 1 or not _differ(nodes):
            _compare(group, nodes, found)
            continue
        for choice in sorted(set(choices)):
            among = [index for index, other in enumerate(choices) if other == choice]
            for index in among:
                found[index].append(f"{group}={choice or _members(nodes[index])}")
            _compare(group, [nodes[index] for index in among], [found[index] for index in among])
    return [tuple(sorted(items)) for items in found]


def _compare(path: str, nodes: Sequence[Any], items: Sequence[list[str]]) -> None:
    """Append `path=value` to the items of each node where the nodes differ, as deep down as they do."""
    if path in (*REPLICATES, *CONTINUED) or not _differ(nodes):
        return
    if all(isinstance(node, Mapping) for node in nodes) and len({node.get("_target_") for node in nodes}) == 1:
        # A benchmark that only some jobs have tells nothing of how a policy was trained.
        keys = [set(node) for node in nodes]
        shared = set.intersection(*keys) if path in ("benchmark", "diagnostic_judge") else set.union(*keys)
        for key in sorted(shared):
            _compare(f"{path}.{key}", [node.get(key) for node in nodes], items)
        return
    for node, own in zip(nodes, items, strict=True):
        own.append(f"{path}={_short(node)}")


def _members(node: Any) -> str:
    """What a group of several components is called where no option of it was chosen: by their names."""
    return ",".join(sorted(node)) if isinstance(node, Mapping) and "_target_" not in node else ""


def _differ(nodes: Sequence[Any]) -> bool:
    return len({json.dumps(node, sort_keys=True) for node in nodes}) > 1


def _short(node: Any) -> str:
    if isinstance(node, Mapping):
        return str(node.get("_target_", "")).rpartition(".")[2] or json.dumps(node, sort_keys=True)
    if isinstance(node, str):
        return node
    return json.dumps(node)


def shared_overrides(records: Sequence[JobRecord]) -> tuple[str, ...]:
    """What all jobs were started with, beside objective and seed, as it was typed."""
    mine = [set(_typed(record)) for record in records]
    return tuple(sorted(set.intersection(*mine))) if mine else ()


def _typed(record: JobRecord) -> Iterator[str]:
    return (item for item in record.overrides if not item.startswith(("objective=", "seed=")))
