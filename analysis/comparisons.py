"""Tables laid out like the paper's: data recipes, and the paper's numbers beside measured ones where both exist."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from analysis import published, style
from analysis.collect import iteration_label
from analysis.summary import diagnostic_metric, metric_names, official, over_seeds, points, title, unique
from analysis.table import Table, digits_for, number
from analysis.tables import problem_notes

if TYPE_CHECKING:
    import pandas as pd

    from analysis.collect import Run, Sweep

RECIPES = {
    "uf": ("UF", "UF"),
    "pairrm_uf": ("UF", "PairRM(UF)"),
    "pairrm_uf_full": ("UF", "PairRM(UF)"),
    "pairrm_gen_uf": ("UF", "PairRM(Gen(UF))"),
    "pairrm_gen_si_uf": ("SI(UF)", "PairRM(Gen(SI(UF)))"),
}
"""Prompts and responses of each recipe, in the order and words of the paper's first table."""

PAPER_RECIPES = {"pairrm_uf_full": "pairrm_uf"}
"""Recipes that go by another name in the paper's row."""

PAPER_MODELS = {
    "mistral_large": "AIPO (Mistral-Large 2407)",
    "llama_3_70b": "AIPO (Llama-3-70B-Instruct)",
    "gemma_2_27b": "AIPO (Gemma-2-27B-It)",
    "mistral_nemo": "AIPO (Mistral-Nemo-Instruct-2407)",
}
"""Beginning of a name in conf/model -> row of the paper's headline table."""

SEEDS_NOTE = "seeds: those scored after this round / all of the sweep."

RECIPES_MODEL = "mistral_7b"
"""Beginning of the conf/model name of the model the official recipes train."""


def recipes_table(sweep: Sweep, benchmarks: list[str]) -> Table | None:
    """A row per data recipe and objective at its last iteration; None where the sweep has only one recipe."""
    import pandas as pd

    recipes = {run.recipe for run in sweep.runs}
    if len(recipes) < 2 or not benchmarks:
        return None
    known = [*RECIPES, *sorted(recipes - set(RECIPES))]
    records: list[dict[str, Any]] = []
    for recipe in (name for name in known if name in recipes):
        runs = [run for run in sweep.runs if run.recipe == recipe]
        found = {(run.objective, _other_settings(run)) for run in runs}
        for objective, variant in sorted(found, key=lambda item: style.series_order(*item)):
            mine = {run.job for run in runs if (run.objective, _other_settings(run)) == (objective, variant)}
            prompts, responses = RECIPES.get(recipe, ("", ""))
            record: dict[str, Any] = {"recipe": recipe, "prompts": prompts, "responses": responses}
            record |= {"objective": objective, "variant": variant, "round": "", "seeds": f"0 / {len(mine)}"}
            record |= {"n_seeds_expected": len(mine), "fingerprints": ()}
            reached: list[dict[str, Any]] = []
            for benchmark in benchmarks:
                last = _last_iteration(sweep, benchmark, mine)
                if last is None:
                    continue
                reached.append(last)
                record[f"{benchmark}_n_seeds"] = last["n"]
                record["fingerprints"] += last["fingerprints"]
                judges = [name for name in last if name.startswith("by_")]
                for column in ("score", "score_sd", "win_rate", *judges, "length", "length_sd"):
                    if column in last:
                        record[f"{benchmark}_{column}"] = last[column]
            if reached:
                record["round"] = ", ".join(unique(iteration_label(last["iteration"]) for last in reached))
                record["seeds"] = ", ".join(unique(f"{last['n']} / {len(mine)}" for last in reached))
            records.append(record)
    data = pd.DataFrame(records)
    varied = bool((data["variant"] != "").any())
    shown, header = [], []
    for benchmark in benchmarks:
        primary, length = metric_names(sweep, benchmark)
        name = title(sweep, benchmark)
        labels = {"score": style.metric_name(primary, benchmark), "win_rate": style.metric_name("win_rate", benchmark)}
        for column in points(sweep, benchmark).columns:
            if column.startswith("by_"):
                judge = column.removeprefix("by_")
                metric = style.metric_name(diagnostic_metric(sweep, benchmark, judge), benchmark)
                labels[column] = f"{metric} by judge {judge}"
        for column, label in (labels | {"length": style.metric_name(length)}).items():
            if f"{benchmark}_{column}" in data:
                shown.append(f"{benchmark}_{column}")
                header.append(f"{name}: {label}")
    if not shown:
        return None  # no recipe has a readable score; the report's list says so
    digits = {column: digits_for(data[column].tolist()) for column in shown}
    cells = []
    for row in data.to_dict("records"):
        first = [row["prompts"] or row["recipe"], row["responses"] or row["recipe"]]
        first += [
            style.objective_name(row["objective"]),
            *([row["variant"]] if varied else []),
            row["round"],
            row["seeds"],
        ]
        cells.append((*first, *(_with_sd(row, column, digits[column]) for column in shown)))
    text_header = ("prompts", "responses", "objective", *(["variant"] if varied else []), "round", "seeds")
    fingerprints = unique(digest for digests in data["fingerprints"] for digest in digests)
    notes = (
        "UF: the offline data set; SI: Self-Instruct; Gen: own candidates; PairRM stands for the sweep's ranker.",
        SEEDS_NOTE + " Several counts: of the benchmarks in turn.",
    )
    return Table(
        name="recipes",
        title="Data recipes, measured",
        data=data.drop(columns="seeds").assign(fingerprints=data["fingerprints"].map(" ".join)),
        header=(*text_header, *header),
        cells=tuple(cells),
        notes=(*notes, *problem_notes(sweep)),
        fingerprints=fingerprints,
        text_columns=len(text_header),
    )


def paper_table(sweep: Sweep, benchmarks: list[str]) -> Table | None:
    """The paper's numbers and the measured ones of the same setting, in columns of their own.

    Only what the paper reports: the official benchmarks, its models with its objective (headline) or plain DPO
    (recipes). Runs with other settings are rows of their own. None where the sweep has none of it.
    """
    import pandas as pd

    records = []
    for place, row, variant, jobs in _paper_rows(sweep):
        for benchmark in (name for name in benchmarks if name in style.OFFICIAL_NAMES and official(sweep, name)):
            last = _last_iteration(sweep, benchmark, jobs)
            for column in ("score", "win_rate", "length"):
                printed = row.get(f"{benchmark}_{column}")
                if last is None or printed is None or column not in last:
                    continue
                metric = dict(zip(("score", "length"), metric_names(sweep, benchmark), strict=True)).get(column, column)
                records.append(
                    {"place": place, "row": row.get("model") or row["recipe"], "variant": variant}
                    | {"benchmark": benchmark}
                    | {"metric": metric, "paper": float(printed), "measured": last[column]}
                    | {"difference": last[column] - printed, "round": iteration_label(last["iteration"])}
                    | {"n_seeds": last["n"], "n_seeds_expected": len(jobs)}
                    | {"judge": last["judge"], "fingerprints": " ".join(last["fingerprints"])}
                )
    if not records:
        return None
    found = {(r["place"], r["row"], r["variant"]) for r in records}
    varied = len({key[:2] for key in found}) < len(found)
    cells = tuple(
        (
            *(r["place"], r["row"], *([r["variant"]] if varied else [])),
            *(style.benchmark_name(r["benchmark"]), style.metric_name(r["metric"], r["benchmark"])),
            *(number(r["paper"], 1), number(r["measured"], 1), number(r["difference"], 1), r["round"]),
            *(f"{r['n_seeds']} / {r['n_seeds_expected']}", r["judge"]),
        )
        for r in records
    )
    header = ("paper's table", "row", *(["variant"] if varied else []), "benchmark", "metric")
    return Table(
        name="paper_vs_measured",
        title="The paper's numbers beside measured ones",
        data=pd.DataFrame(records),
        header=(*header, "paper", "measured", "difference", "round", "seeds", "judge"),
        cells=cells,
        notes=("paper: as printed in arXiv 2409.08845. measured: the last round here, mean over seeds.", SEEDS_NOTE),
        fingerprints=unique(digest for r in records for digest in r["fingerprints"].split()),
        text_columns=4 + varied,
    )


def _paper_rows(sweep: Sweep) -> Iterator[tuple[str, dict[str, Any], str, set[str]]]:
    """Which of the paper's tables, its row, the variant of the runs here that have its setting, and their jobs."""
    for row in published.read("recipes").to_dict("records"):
        runs = [
            run
            for run in sweep.runs
            if PAPER_RECIPES.get(run.recipe, run.recipe) == row["recipe"] and run.model.startswith(RECIPES_MODEL)
        ]
        yield from (("recipes", row, *found) for found in _by_variant(runs, "dpo"))
    for row in published.read("headline").to_dict("records"):
        names = tuple(name for name, row_name in PAPER_MODELS.items() if row_name == row["model"])
        runs = [run for run in sweep.runs if names and run.model.startswith(names)]
        yield from (("headline", row, *found) for found in _by_variant(runs, "aipo"))


def _by_variant(runs: list[Run], objective: str) -> Iterator[tuple[str, set[str]]]:
    """The variants of the objective among these runs, each with its jobs."""
    mine = [run for run in runs if run.objective == objective]
    for variant in sorted({run.variant for run in mine}, key=lambda variant: style.series_order(objective, variant)):
        yield variant, {run.job for run in mine if run.variant == variant}


def _last_iteration(sweep: Sweep, benchmark: str, jobs: set[str]) -> dict[str, Any] | None:
    """The summary over seeds of these jobs at their last iteration: of those that reached it, `n`."""
    frame = points(sweep, benchmark)
    rows: pd.DataFrame = frame[frame["job"].isin(jobs) & (frame["objective"] != "")].assign(variant="")
    if rows.empty:
        return None
    return over_seeds(rows[rows["iteration"] == rows["iteration"].max()]).iloc[0].to_dict()


def _other_settings(run: Run) -> str:
    return ",".join(item for item in run.variant_items if not item.startswith("data="))


def _with_sd(row: dict[str, Any], column: str, digits: int) -> str:
    text, sd = number(row[column], digits), row.get(f"{column}_sd")
    return text if sd is None or sd != sd else f"{text} ± {number(sd, digits)}"
