"""The head of a model card, which the Hugging Face hub reads: licence, base model, data sets, scores (model-index)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aipo.jobs import BenchmarkRecord, JobRecord

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

OUR_LICENSE = "apache-2.0"
"""Of this package, and so of the miniature's weights."""
HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+")
TASK = "text-generation"


def head(
    record: JobRecord,
    objective: str,
    name: str,
    scores: Sequence[tuple[BenchmarkRecord, str, Mapping[str, Mapping[str, Any]]]],
) -> str:
    """The YAML between the card's two `---` lines, these included. `scores`: benchmark, judge, metrics by name."""
    from huggingface_hub import ModelCardData

    model = record.settings["model"]
    base = _hub_model(model)
    data = ModelCardData(
        model_name=name,
        library_name="transformers",
        pipeline_tag=TASK,
        base_model=base,
        datasets=list(dict.fromkeys(_data_sets(record.settings.get("data")))) or None,
        tags=["preference-optimization", objective],
        eval_results=list(_results(scores)) or None,
    )
    for key, value in _license(model, base).items():
        data[key] = value
    return f"---\n{data.to_yaml()}\n---"


def _hub_model(model: Mapping[str, Any]) -> str | None:
    path = model.get("path")
    return str(path) if path and not Path(path).is_dir() else None


def _license(model: Mapping[str, Any], base: str | None) -> dict[str, str]:
    """The base model's, which holds for what is trained from it: as its own card says where that lies here."""
    if not model.get("path"):
        return {"license": OUR_LICENSE}
    if card := _own_card(model, base):
        from huggingface_hub import ModelCard

        found = ModelCard(card.read_text(encoding="utf-8"), ignore_metadata_errors=True).data
        names = ("license", "license_name", "license_link")
        said = {name: str(found.get(name)) for name in names if found.get(name)}
        if "license" in said:
            return said
    return {"license": "other", "license_name": "that-of-the-base-model"}


def _own_card(model: Mapping[str, Any], base: str | None) -> Path | None:
    if base is None:
        path = Path(model["path"]) / "README.md"
        return path if path.is_file() else None
    if not HUB_ID.fullmatch(base):
        return None
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(base, "README.md", revision=model.get("revision"))
    return Path(found) if isinstance(found, str) else None


def _data_sets(node: Any) -> Iterator[str]:
    """Hub ids of data sets, wherever in the settings they are."""
    if isinstance(node, Mapping):
        path = node.get("path")
        if "revision" in node and isinstance(path, str) and HUB_ID.fullmatch(path) and not Path(path).is_dir():
            yield path
        for value in node.values():
            yield from _data_sets(value)


def _results(
    scores: Sequence[tuple[BenchmarkRecord, str, Mapping[str, Mapping[str, Any]]]],
) -> Iterator[EvalResult]:
    """Of each benchmark and judge: the metric that tables show, and the mean length beside which it stands."""
    from huggingface_hub import EvalResult

    for benchmark, judge, metrics in scores:
        for name in dict.fromkeys((benchmark.primary_metric, benchmark.length_metric)):
            yield EvalResult(
                task_type=TASK,
                dataset_type=benchmark.name,
                dataset_name=benchmark.name,
                dataset_config=f"judged by {judge}",  # without it the hub takes several judges' scores for one's
                metric_type=name,
                metric_name=name,
                metric_value=metrics[name]["value"],
            )
