"""The asset cache: nothing wrong is kept, nothing is fetched unasked, every message names file and hash."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path

import pytest

from aipo.benchmarks.official.assets import (
    ASSETS,
    Asset,
    AssetCache,
    MissingAsset,
    WrongAsset,
    asset,
    load_cl100k,
    main,
)
from aipo.benchmarks.official.questions import OfficialAlpacaEval, OfficialArenaHard, OfficialMTBench

CONTENT = b"question of our own\n"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    (tmp_path / "served").mkdir()
    (tmp_path / "served/file.txt").write_bytes(CONTENT)
    http = HTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(tmp_path / "served")))
    thread = threading.Thread(target=http.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{http.server_port}"
    http.shutdown()
    thread.join()
    http.server_close()


def test_missing_file_names_path_url_and_hash(tmp_path: Path) -> None:
    wanted = asset("mt_bench/question.jsonl")
    with pytest.raises(MissingAsset) as caught:
        AssetCache(str(tmp_path)).path(wanted)
    for part in (str(tmp_path / wanted.path), wanted.url, wanted.sha256, "python -m aipo.benchmarks assets"):
        assert part in str(caught.value)


def test_fetch_verifies_and_keeps(tmp_path: Path, server: str) -> None:
    cache = AssetCache(str(tmp_path / "cache"))
    wanted = Asset("group/file.txt", f"{server}/file.txt", SHA256)
    assert cache.missing([wanted]) == [wanted]
    assert cache.fetch(wanted).read_bytes() == CONTENT
    assert cache.missing([wanted]) == []
    (tmp_path / "served/file.txt").write_bytes(b"changed")
    assert cache.fetch(wanted).read_bytes() == CONTENT


def test_wrong_download_is_not_kept(tmp_path: Path, server: str) -> None:
    cache = AssetCache(str(tmp_path / "cache"))
    wanted = Asset("file.txt", f"{server}/file.txt", "0" * 64)
    with pytest.raises(WrongAsset, match=f"not the pinned version.*expected sha256:{'0' * 64} but got {SHA256}"):
        cache.fetch(wanted)
    assert list((tmp_path / "cache").iterdir()) == []


def test_failed_download_says_where_to_put_the_file(tmp_path: Path, server: str) -> None:
    cache = AssetCache(str(tmp_path))
    with pytest.raises(MissingAsset, match=rf"(?s)404.*{tmp_path}/file.txt by hand; its SHA-256 must be {SHA256}"):
        cache.fetch(Asset("file.txt", f"{server}/nothing", SHA256))


def test_changed_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file.txt").write_bytes(b"edited")
    with pytest.raises(WrongAsset, match="not the pinned version"):
        AssetCache(str(tmp_path)).path(Asset("file.txt", "http://x", SHA256))


def test_folder_comes_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIPO_ASSETS", str(tmp_path / "a"))
    assert AssetCache().folder == tmp_path / "a"
    assert AssetCache(str(tmp_path / "b")).folder == tmp_path / "b"
    monkeypatch.delenv("AIPO_ASSETS")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert AssetCache().folder == tmp_path / ".cache/aipo"


def test_pinned_hashes(data: Path) -> None:
    """Every file that the verification data holds verbatim."""
    places = {
        "alpaca_eval/gpt4_1106_preview.json": "alpaca_eval/alpaca_eval_gpt4_baseline.json",
        "alpaca_eval/alpaca_eval_clf.txt": None,
        "alpaca_eval/df_gamed.csv": None,
    }
    checked = 0
    for group in ASSETS.values():
        for wanted in group:
            place = places.get(wanted.path, wanted.path)
            if place is not None and not wanted.path.startswith("tiktoken/"):
                assert hashlib.sha256((data / place).read_bytes()).hexdigest() == wanted.sha256, wanted.path
                checked += 1
    assert checked == 8


@pytest.fixture
def cache(data: Path, tmp_path: Path) -> AssetCache:
    """A cache with the official files, the judge prompt of AlpacaEval taken back from a rendered request."""
    for source, target in (
        ("mt_bench", "mt_bench"),
        ("arena_hard", "arena_hard"),
    ):
        shutil.copytree(data / source, tmp_path / target)
    (tmp_path / "alpaca_eval").mkdir()
    shutil.copy(data / "alpaca_eval/alpaca_eval_gpt4_baseline.json", tmp_path / "alpaca_eval/gpt4_1106_preview.json")
    rendered = json.loads((data / "fixtures/alpaca_parser_prompt.json").read_text())["prompts"][0]
    template = "\n".join(
        f"<|im_start|>{message['role']}\n{message['content']}\n<|im_end|>" for message in rendered["chatml_messages"]
    )
    for name in ("instruction", "output_1", "output_2"):
        template = template.replace(rendered[name], "{" + name + "}")
    (tmp_path / "alpaca_eval/alpaca_eval_clf.txt").write_text(template)
    return AssetCache(str(tmp_path))


def test_official_mt_bench(cache: AssetCache) -> None:
    for references in ("gpt-4", "gpt-4-1106-preview"):
        source = OfficialMTBench(references, cache)
        assets = source.load()
        assert (len(assets.questions), len(assets.references), len(assets.judge_prompts)) == (80, 30, 8)
        identity = source.identity()
        assert len(identity.answering | identity.judging | identity.scoring) == 3
    with pytest.raises(ValueError, match="references: expected one of"):
        OfficialMTBench("gpt-5")


def test_official_alpaca_eval(cache: AssetCache, data: Path) -> None:
    with pytest.raises(MissingAsset, match="df_gamed.csv"):
        OfficialAlpacaEval(cache=cache).load()
    source = OfficialAlpacaEval(str(data / "alpaca_eval/df_gamed_reconstructed.csv"), cache)
    assets = source.load()
    assert (len(assets.items), len(assets.baseline_outputs), len(assets.gamed)) == (805, 805, 1610)
    identity = source.identity()
    assert set(identity.answering | identity.judging | identity.scoring) == {
        "alpaca_eval/gpt4_1106_preview.json", "alpaca_eval/alpaca_eval_clf.txt", "gamed",
    }  # fmt: skip


def test_official_arena_hard(cache: AssetCache) -> None:
    assets = OfficialArenaHard(cache).load()
    assert (len(assets.questions), len(assets.baseline_answers)) == (500, 500)
    assert "[[A>>B]]" in assets.system_prompt
    assert assets.prompt_template.startswith("<|User Prompt|>")


def test_tiktoken_is_never_asked_without_its_file(tmp_path: Path) -> None:
    with pytest.raises(MissingAsset, match="cl100k_base.tiktoken"):
        load_cl100k(AssetCache(str(tmp_path)))


def test_command_lists_and_fails_loudly(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["--list", "--folder", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == sum(map(len, ASSETS.values()))
    assert all(line.startswith("missing") for line in lines)

    def no_network(*arguments: object, **options: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr("requests.get", no_network)
    assert main(["arena_hard", "--folder", str(tmp_path)]) == 1
    assert capsys.readouterr().err.count("by hand; its SHA-256 must be") == len(ASSETS["arena_hard"])
    with pytest.raises(SystemExit):
        main(["nothing"])


def test_help_is_fast_to_import() -> None:
    """The command lines must not import what only scoring needs."""
    heavy = "{'torch', 'transformers', 'pandas', 'sklearn', 'scipy', 'numpy', 'fastchat'}"
    code = f"import sys, aipo.benchmarks.official.command; print(sorted({heavy} & set(sys.modules)))"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "[]"


def test_the_page_says_where_each_file_goes() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs/benchmarks.md").read_text(encoding="utf-8")
    assert [one.path for group in ASSETS.values() for one in group if f"| `{one.path}` |" not in page] == []


def test_a_gamed_file_that_is_not_there_is_missing(tmp_path: Path) -> None:
    cache = AssetCache(str(tmp_path))
    here = OfficialAlpacaEval(gamed=__file__, cache=cache).missing()
    assert len(here) == 1 and "df_gamed.csv" not in here[0]
    (_, line) = OfficialAlpacaEval(gamed=str(tmp_path / "no.csv"), cache=cache).missing()
    assert "no.csv, which is no file" in line
