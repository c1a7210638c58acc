"""Every row of numbers that the README and results/README.md show stands in a table of the committed reference."""

from __future__ import annotations

import csv
import json
import math
import re
import shutil
import tarfile
from pathlib import Path

import pytest

from analysis.collect import collect
from analysis.tables import score_table


@pytest.mark.parametrize("page", ["README.md", "results/README.md"])
def test_rows_of_numbers_come_from_the_reference(repository: Path, page: str) -> None:
    tables = (repository / "results").glob("*/tables/*.md")
    known = {line for table in tables for line in table.read_text(encoding="utf-8").splitlines()}
    shown = [line for line in (repository / page).read_text(encoding="utf-8").splitlines() if "p = " in line]
    rows = [line for line in shown if line.startswith("|")]
    assert len(rows) >= 4 and [row for row in rows if row not in known] == []


def test_the_references_jobs_are_there_and_done(repository: Path) -> None:
    files = sorted((repository / "results/miniature_reference/jobs").glob("*/run.json"))
    records = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    assert len(records) == 50 and {record["status"] for record in records} == {"done"}
    seeds = {(record["seed"], record["settings"]["model"]["seed"]) for record in records}
    assert len(seeds) == 10 and len({base for _, base in seeds}) == 3
    assert all(len(record["points"]) == 16 for record in records)


def test_the_grid_of_alpha_has_a_record_of_every_job(repository: Path) -> None:
    folder = repository / "results/alpha_grid"
    jobs = [json.loads(file.read_text(encoding="utf-8")) for file in folder.glob("jobs/*/run.json")]
    alphas = {str(job["settings"]["objective"]["loss"].get("alpha")) for job in jobs}
    runs = {(job["objective"], str(job["settings"]["objective"]["loss"].get("alpha")), job["seed"]) for job in jobs}
    assert alphas == {"None", "0.03", "0.07", "0.15", "0.3"} and len(runs) == len(jobs) == 50
    assert all(job["status"] == "done" and len(job["points"]) == 16 for job in jobs)
    last = {row["variant"]: row for row in rows(folder / "tables/contrasts_gold.csv") if row["round"] == "15"}
    told = " ".join((repository / "results/README.md").read_text(encoding="utf-8").split())
    readme = " ".join((repository / "README.md").read_text(encoding="utf-8").split())
    for alpha, page in (("0.07", told), ("0.15", told), ("0.07", readme), ("0.3", readme)):
        row = last[f"objective.loss.alpha={alpha}"]
        ratio, low, high = (math.exp(float(row[f"log_length{end}"])) for end in ("", "_low", "_high"))
        assert f"{ratio:.2f} ({low:.2f} to {high:.2f})" in page


def test_the_grid_of_the_nll_weight_repeats_the_reference_to_the_digit(repository: Path) -> None:
    folder, reference = repository / "results/nll_grid", repository / "results/miniature_reference"
    jobs = [json.loads(file.read_text(encoding="utf-8")) for file in folder.glob("jobs/*/run.json")]
    runs = {
        (job["objective"], str(job["settings"]["objective"]["loss"].get("nll_weight")), job["seed"]) for job in jobs
    }
    weights = ("0.2", "0.1", "1.0")
    wanted = {("dpo", "None", seed) for seed in range(10)}
    assert runs == wanted | {("aipo", weight, seed) for weight in weights for seed in range(10)}
    assert len(jobs) == 40 and all(job["status"] == "done" and len(job["points"]) == 16 for job in jobs)

    def alike(place: Path, table: str, objective: str, variant: str, names: tuple[str, ...]) -> list[list[str]]:
        found = rows(place / "tables" / f"{table}_gold.csv")
        mine = [row for row in found if (row["objective"], row["variant"]) == (objective, variant)]
        return [[row[name] for name in names] for row in mine]

    told = ("round", "log_length", "log_length_low", "log_length_high", "score", "score_low", "score_high")
    again = alike(folder, "contrasts", "aipo", "objective.loss.nll_weight=0.2", told)
    assert len(again) == 3 and again == alike(reference, "contrasts", "aipo", "", told)
    ends = ("rounds", "last_length", "last_length_se", "last_score", "last_score_se", "peak_score", "late_change")
    for objective, variant in (("dpo", ""), ("aipo", "objective.loss.nll_weight=0.2")):
        again = alike(folder, "curves", objective, variant, ends)
        assert len(again) == 1 and again == alike(reference, "curves", objective, "", ends)
    pages = [(repository / name).read_text(encoding="utf-8") for name in ("README.md", "results/README.md")]
    last = {r["variant"]: r for r in rows(folder / "tables/contrasts_gold.csv") if r["round"] == "15"}
    row = last["objective.loss.nll_weight=1.0"]
    ratio, low, high = (math.exp(float(row[f"log_length{end}"])) for end in ("", "_low", "_high"))
    assert all(f"{ratio:.2f} ({low:.2f} to {high:.2f})" in " ".join(page.split()) for page in pages)


def test_the_pair_of_the_laptops_page_is_the_committed_one(repository: Path) -> None:
    pair = repository / "results/laptop_pair"
    jobs = [json.loads(file.read_text(encoding="utf-8")) for file in pair.glob("jobs/*/run.json")]
    assert sorted(job["objective"] for job in jobs) == ["aipo", "dpo"]
    assert all(job["status"] == "done" and len(job["points"]) == 4 and job["seed"] == 0 for job in jobs)
    made = {score["fingerprint"] for job in jobs for point in job["points"] for score in point["scores"]}
    table = rows(pair / "tables" / "constraints.csv")
    assert {row["fingerprints"] for row in table} == made
    cells = {(r["objective"], r["round"]): "{:.3f}, {:.1f}, {:.1f} %".format(
        *(float(r[name]) for name in ("score", "length", "truncated_share"))) for r in table}  # fmt: skip
    page = (repository / "docs/laptop.md").read_text(encoding="utf-8")
    told = " ".join(page.split())
    for done in ("1", "2", "3"):
        assert f"| {done} | {cells['dpo', done]} | {cells['aipo', done]} |" in page
    assert f"| base | {cells['base model', 'base']} | {cells['base model', 'base']} |" in page
    (contrast,) = rows(pair / "tables" / "contrasts_constraints.csv")
    ratio, low, high = (math.exp(float(contrast[f"log_length{end}"])) for end in ("", "_low", "_high"))
    assert f"{ratio:.2f} of DPO's length (95 % interval {low:.2f} to {high:.2f} over questions)" in told
    score, low, high = (float(contrast[f"score{end}"]) for end in ("", "_low", "_high"))
    assert f"({score:.3f}, {low:.3f} to {high:.3f})" in told


LAPTOP = ("dpo", "dpo_nll", "alpha_dpo", "simpo", "aipo")


def test_the_reference_of_the_laptops_page_is_the_committed_one(repository: Path) -> None:
    folder = repository / "results/laptop_reference"
    jobs = [json.loads(file.read_text(encoding="utf-8")) for file in folder.glob("jobs/*/run.json")]
    runs = sorted((job["objective"], job["seed"]) for job in jobs)
    assert runs == sorted((name, seed) for name in LAPTOP for seed in (0, 1, 2))
    assert all(job["status"] == "done" and len(job["points"]) == 4 for job in jobs)
    made = {score["fingerprint"] for job in jobs for point in job["points"] for score in point["scores"]}
    table = rows(folder / "tables" / "constraints.csv")
    assert {digest for row in table for digest in row["fingerprints"].split()} == made
    page = (repository / "docs/laptop.md").read_text(encoding="utf-8")
    section = page[page.index("## Five objectives, three seeds") : page.index("## An earlier pair")]
    cells = {(r["objective"], r["round"]): "{:.3f}, {:.0f}, {:.0f} %".format(
        *(float(r[name]) for name in ("score", "length", "truncated_share"))) for r in table}  # fmt: skip
    for done in ("1", "2", "3"):
        assert f"| {done} | {' | '.join(cells[name, done] for name in LAPTOP)} |" in section
    assert f"| base | {' | '.join([cells['base model', 'base']] * 5)} |" in section
    shown = [line for line in section.splitlines() if line.startswith("|") and "p = " in line]
    made_there = (folder / "tables" / "contrasts_constraints.md").read_text(encoding="utf-8").splitlines()
    assert len(shown) == 4 and [line for line in shown if line not in made_there] == []
    told = " ".join(section.split())
    readme = " ".join((repository / "README.md").read_text(encoding="utf-8").split())
    by_name = {row["objective"]: row for row in rows(folder / "tables" / "contrasts_constraints.csv")}
    contrast = by_name["aipo"]
    ratio, low, high = (math.exp(float(contrast[f"log_length{end}"])) for end in ("", "_low", "_high"))
    assert f"({ratio:.2f}, {low:.2f} to {high:.2f};" in readme
    detectable = max(float(row["log_length_detectable"]) for row in by_name.values())
    assert f"a ratio of {math.exp(-detectable):.2f} in" in told


def test_the_archives_of_the_laptops_reference_make_its_tables(repository: Path, tmp_path: Path, monkeypatch) -> None:
    folder = repository / "results/laptop_reference"
    archives = sorted(folder.glob("artifacts*.tar.xz"))
    assert len(archives) == 2
    for path in archives:
        with tarfile.open(path) as archive:
            members = archive.getmembers()
            assert all(one.isfile() or one.isdir() for one in members)
            assert not [one.name for one in members if one.name.endswith(".safetensors")]
            assert {one.name.partition("/")[0] for one in members} == {"outputs"}
            archive.extractall(tmp_path, filter="data")
    sweep = tmp_path / "results/laptop_reference"
    shutil.copytree(folder / "jobs", sweep / "jobs")
    monkeypatch.chdir(tmp_path)
    table = score_table(collect(sweep), "constraints")
    assert table.csv() == (folder / "tables/constraints.csv").read_text(encoding="utf-8")


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def arms(repository: Path, folder: str) -> set[tuple[str, float, str]]:
    """Objective, learning rate and seeds of every policy after round 3 in a league's scores."""
    scores = rows(repository / "results" / folder / "tables" / "gold.csv")
    last = [row for row in scores if row["round"] == "3"]
    return {(r["objective"], float(re.search(r"learning_rate=([^,]+)", r["variant"])[1]), r["seeds"]) for r in last}


def test_the_league_followed_its_protocol(repository: Path) -> None:
    everything = {path.stem for path in (repository / "conf" / "objective").glob("*.yaml")}
    tried = {(name, rate, "1000 1001") for name in everything for rate in (1e-4, 3e-4, 1e-3)}
    assert arms(repository, "league_tuning") == tried
    final = arms(repository, "league")
    rates = {name: rate for name, rate, _ in final}
    assert len(final) == len(rates) == len(everything) + 3 and {seeds for *_, seeds in final} == {"0 1 2 3 4 5"}
    for name, of in (("dpo_placebo", "dpo"), ("r_dpo_flipped", "r_dpo"), ("simpo_low_beta", "simpo")):
        assert rates[name] == rates[of]
    table = rows(repository / "results/league/tables/league.csv")
    del rates["dpo"]  # the control has no row
    assert {row["objective"]: float(row["learning_rate"]) for row in table} == rates
    values = [float(row["score_at_equal_length"] or "-inf") for row in table]
    assert values == sorted(values, reverse=True)


def test_the_second_league_is_what_its_scores_say(repository: Path) -> None:
    last = {r["objective"]: r for r in rows(repository / "results/league_15/tables/gold.csv") if r["round"] == "15"}
    known = {"dpo_placebo", "r_dpo_flipped", "simpo_low_beta"}
    assert set(last) == known | {"dpo", "dpo_nll", "simpo", "alpha_dpo", "aipo"}
    assert {row["seeds"] for row in last.values()} == {"0 1 2 3 4 5 6 7 8 9"}
    chosen = {name: rate for name, rate, _ in arms(repository, "league")}
    table = rows(repository / "results/league_15/tables/league.csv")
    assert {row["objective"] for row in table} == set(last) - {"dpo"}
    for row in table:
        assert float(row["learning_rate"]) == chosen[row["objective"]] == chosen["dpo"]
        difference = float(last[row["objective"]]["score"]) - float(last["dpo"]["score"])
        assert float(row["score"]) == pytest.approx(
            difference, abs=2e-3
        )  # there base models weigh alike, here seeds do
