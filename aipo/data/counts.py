"""What the manifest of a round's candidates says."""

from __future__ import annotations

from collections.abc import Sequence

from aipo.records import Candidates


def completion_counts(rows: Sequence[Candidates]) -> dict[str, float | int]:
    """Prompts, completions, their mean length, and how many were cut. ValueError where there is none."""
    completions = [completion for row in rows for completion in row.completions]
    if not completions:
        raise ValueError("no prompt has a completion; check data.responses and the source")
    return {
        "prompts": len(rows),
        "completions": len(completions),
        "mean_tokens": sum(completion.n_tokens for completion in completions) / len(completions),
        "truncated": sum(completion.finish == "length" for completion in completions),
    }
