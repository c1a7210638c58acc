"""The page: what is in it, that nothing gets out of it, and that it is made the same again."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from base64 import b64encode

import pytest

from aipo.artifacts import seal
from aipo.artifacts.manifest import SELF_HASH
from aipo.miniature.gold import count_facts, mark_sentences
from aipo.records import Answer, Message, read_parquet
from analysis import analyse, page
from analysis.__main__ import main
from analysis.collect import collect
from analysis.page import texts as texts_module
from analysis.page.packing import pack, unpack
from analysis.page.render import SCRIPTS, asset, render
from analysis.page.sources import Shelf
from analysis.stamp import STAMP

from page_sweep import HOSTILE, with_texts  # isort: skip

CHUNK = re.compile(r'<script type="application/octet-stream" id="([\w-]+)">([^<]*)</script>')


def data(html: str) -> dict[str, object]:
    return {name: unpack(packed) for name, packed in CHUNK.findall(html)}


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    return with_texts(tmp_path_factory.mktemp("page"))


@pytest.fixture(scope="module")
def html(sweep):
    return render(collect(sweep.folder), [], None, ["<img src=x onerror=alert(1)>"])


def test_no_text_of_others_is_markup(html):
    """Hostile text stands in the page in base64 or escaped: tags are the template's own, whatever models wrote."""
    assert "<img" not in html and "&lt;img src=x onerror=alert(1)&gt;" in html
    assert HOSTILE not in html and "‮" not in html
    assert html.count("</script>") == 3 + len([name for name in data(html) if name.startswith("chunk")]) - 1
    assert html.count("</style>") == 1
    found = data(html)
    answers = [
        sheet for name, chunk in found.items() if name.startswith("chunk") for sheet in chunk.values() if "t" in sheet
    ]
    assert any(HOSTILE in turns for sheet in answers for turns in sheet["t"])


def test_the_page_may_load_nothing(html):
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', html).group(1).replace("&#39;", "'")
    style, script = (re.search(f"<{tag}>(.*?)</{tag}>", html, re.DOTALL).group(1) for tag in ("style", "script"))
    for kind, text in (("style", style), ("script", script)):
        digest = b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'; ") and "unsafe" not in policy
    assert not re.search(r'(?:src|href)="(?!#)', html)
    for name in SCRIPTS:
        source = asset(name)
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|fetch\(|XMLHttp", source
        ), name
        assert "</script" not in source and len(source.splitlines()) <= 400


def test_the_same_artifacts_give_the_same_page(sweep, html):
    assert render(collect(sweep.folder), [], None, ["<img src=x onerror=alert(1)>"]) == html


def test_pack_is_exact_and_repeatable():
    value = {"a": [1, 2.5, None, "</script><!-- \u2028 ‮ \U0001f600"], "b": float("nan")}
    packed = pack(value)
    assert packed == pack(value) and re.fullmatch(r"[A-Za-z0-9+/=]+", packed)
    assert unpack(packed) == value | {"b": None}


def test_answers_verdicts_and_candidates_are_those_of_the_artifacts(sweep, html):
    found = data(html)
    view = found["overview-data"]
    benchmark = next(one for one in view["benchmarks"] if one["name"] == "alpaca_eval")
    assert [question["question_id"] for question in benchmark["questions"]] == ["0", "1", "2"]
    point = next(point for point in view["points"] if point["iteration"] == 0)
    sheet = next(sheet for sheet in point["sheets"] if sheet["benchmark"] == "alpaca_eval")
    chunk = found[f"chunk-{view['chunks'][sheet['answers']]}"]
    rows = read_parquet(sweep.store / "answers" / sheet["answers"] / "answers.parquet", Answer)
    assert chunk[sheet["answers"]]["t"] == [[turn.text for turn in row.turns] for row in rows]
    assert chunk[sheet["answers"]]["n"] == [[turn.n_tokens for turn in row.turns] for row in rows]
    assert chunk[sheet["answers"]]["x"] == [[int(turn.finish == "length") for turn in row.turns] for row in rows]
    verdict = sheet["verdicts"][0]
    assert chunk[verdict["scores"]]["v"] == [0.25, 0.5, None]
    assert chunk[verdict["scores"]]["j"][0] == [[1, "policy_first", 0.25, "because <b>"]]
    prompts = found[f"chunk-{view['chunks'][point['pairs']]}"][point["pairs"]]
    assert [(row["i"], row["w"], row["l"]) for row in prompts] == [("p0", 1, 0), ("p1", None, None)]
    assert [candidate[3] for candidate in prompts[0]["c"]] == [0.1, 0.9]


def test_a_large_sweep_is_sampled_and_says_so(sweep, html, monkeypatch):
    monkeypatch.setattr(texts_module, "TEXTS_PER_REPLICATE", 10)
    view = data(render(collect(sweep.folder), [], None, []))["overview-data"]
    benchmark = next(one for one in view["benchmarks"] if one["name"] == "alpaca_eval")
    assert [question["question_id"] for question in benchmark["questions"]] == ["0", "1"] and benchmark[
        "n_questions"
    ] == 3
    assert view["texts_note"].startswith("To stay small the page holds a sample of the texts: of the questions")
    monkeypatch.undo()
    whole = sum(len(packed) for name, packed in CHUNK.findall(html) if name.startswith("chunk"))
    monkeypatch.setattr(texts_module, "PACKED_CHARACTERS", whole - 100)
    small = render(collect(sweep.folder), [], None, [])
    assert sum(len(packed) for name, packed in CHUNK.findall(small) if name.startswith("chunk")) <= whole - 100


def test_the_stamp_covers_the_page(small_sweep, tmp_path):
    """A touched page is written again, to the same bytes."""
    written = analyse(small_sweep.folder)
    path = small_sweep.folder / page.FILE
    assert path in written and page.FILE in (small_sweep.folder / STAMP).read_text(encoding="utf-8")
    before = path.read_bytes()
    path.write_bytes(before + b"touched")
    analyse(small_sweep.folder)
    assert path.read_bytes() == before
    assert "<b>|loss|</b>" not in before.decode() and "&lt;b&gt;|loss|&lt;/b&gt;" in before.decode()


def test_the_verdict_is_that_of_the_tables(small_sweep):
    """Questions are counted once, whatever the seeds; lengths and the ratio to the control are those of the frame."""
    collected = collect(small_sweep.folder)
    found = page.verdict(collected, ["alpaca_eval"])
    scores = collected.scores
    last = scores[(scores["iteration"] == 2) & (scores["diagnostic"] == "") & (scores["metric"] == "mean_tokens")]
    rows = {row.series: row for row in found.rows}
    scored = scores[(scores["metric"] == "lc_win_rate") & (scores["diagnostic"] == "")]["n_scored"].unique()
    assert {row.n for row in found.rows} == set(scored) and rows["DPO"].seeds == "2"
    lengths = last.groupby("objective")["value"].mean()
    assert rows["AIPO"].length == f"{lengths['aipo']:.1f}"
    assert found.caption == "AlpacaEval 2 (miniature) after 3 rounds"
    assert rows["DPO"].ratio == "1 (control)" and rows["AIPO"].ratio.startswith("0.")


def test_marks_are_what_gold_counts():
    chat = (Message("user", "Tell me the pet and the home of the judge."),)
    text = "The judge keeps a rabbit. Thank you for asking.\nThe judge keeps a rabbit. The judge keeps a goat. The jud"
    asked, marks = mark_sentences(chat, text)
    assert asked == 2 and marks == ["right", "filler", "repeated", "wrong", "nonsense"]
    count = count_facts(chat, text)
    assert (count.asked, count.right, count.wrong, count.nonsense) == (2, 1, 1, 1)


@pytest.mark.parametrize("stage", ["candidates", "ranking", "train", "pairs", "answers", "judgments"])
def test_an_artifact_that_was_changed_behind_the_page_is_told_everywhere(tmp_path, capsys, stage) -> None:
    """One byte, size and time as before: found though the last analysis is there, and told with file and remedy on the
    console and in the report as on the page; in no figure. Put back, it is as it was."""
    folder = with_texts(tmp_path).folder
    assert main([str(folder)]) == 0
    before = (folder / "index.html").read_bytes()
    capsys.readouterr()
    artifact = min((tmp_path / "outputs" / stage).iterdir())
    (path,) = [path for path in artifact.iterdir() if path.name not in ("manifest.json", "questions.parquet")]
    content, status = path.read_bytes(), path.stat()
    middle = len(content) // 2
    path.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert main([str(folder)]) == 3
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("missing: ")]
    assert lines and all(str(path) in line and f"mv {artifact} {artifact}.partial" in line for line in lines)
    for name in ("report.md", "index.html"):
        assert (folder / name).read_text().count("the manifest lists SHA-256") == len(lines)
    path.write_bytes(content)
    assert main([str(folder)]) == 0
    assert (folder / "index.html").read_bytes() == before


@pytest.mark.parametrize(
    ("file", "before", "after"),
    [("train/*/metrics.jsonl", "0.6", "0.9"), ("judgments/*/judgments.jsonl", "because", "despite")],
)
def test_an_artifact_that_was_made_again_makes_a_page_again(tmp_path, file, before, after):
    """No score changes, only what the page reads beside them; its manifest says so, and no large file is read twice."""
    made = with_texts(tmp_path)
    analyse(made.folder)
    first = (made.folder / page.FILE).read_bytes()
    for path in made.store.glob(file):
        text = path.read_text(encoding="utf-8")
        assert before in text
        path.write_text(text.replace(before, after), encoding="utf-8")
        manifest = json.loads((path.parent / "manifest.json").read_text(encoding="utf-8"))
        seal(path.parent, {key: manifest[key] for key in manifest if key not in ("files", "scratch", SELF_HASH)})
    analyse(made.folder)
    second = (made.folder / page.FILE).read_bytes()
    assert second != first
    again = (made.folder / page.FILE).stat().st_mtime_ns
    analyse(made.folder)
    assert (made.folder / page.FILE).stat().st_mtime_ns == again


@pytest.mark.parametrize("stage", ["candidates", "answers"])
def test_the_page_does_not_claim_texts_that_cannot_be_read(tmp_path, monkeypatch, stage):
    made = with_texts(tmp_path)
    assert _holds(made) == "The page holds every answer and every candidate of the sweep."
    shutil.rmtree(next(made.store.glob(f"{stage}/*")))
    assert _holds(made) == "The page holds what can be read of the answers and candidates of the sweep; some cannot."
    monkeypatch.setattr(texts_module, "TEXTS_PER_REPLICATE", 1)
    assert _holds(made).endswith("All texts that can be read are in the store; some cannot.")


def _holds(made) -> str:
    sweep = collect(made.folder)
    return texts_module.gather([sweep.runs], Shelf())[1]
