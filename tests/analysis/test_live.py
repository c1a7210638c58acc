"""The page while a sweep runs: the same bytes as at its end, written beside the job, and served with news of itself."""

from __future__ import annotations

import http.client
import json
import os
import resource
import subprocess
import threading
import time
from contextlib import contextmanager
from functools import partial
from http.server import ThreadingHTTPServer

import pytest

from aipo.artifacts import StageEvent, StageReport
from aipo.command.viewing import Handler, Watcher, serve
from aipo.pipeline import live as beside
from aipo.pipeline.live import LivePage
from analysis import analyse, live
from analysis.page import watching

from page_sweep import with_texts  # isort: skip


@pytest.fixture
def sweep(tmp_path):
    return with_texts(tmp_path)


def records(sweep):
    return sorted(sweep.folder.glob("jobs/*/run.json"))


def say(sweep, status: str, at: float = 0.0) -> None:
    """Every job says `status`, from now on or from `at` seconds later."""
    for path in records(sweep):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"status": status}))
        os.utime(path, (time.time() + at,) * 2)


def test_the_page_meanwhile_is_the_one_of_the_end_and_nothing_else_is_written(sweep):
    assert live.main([str(sweep.folder)]) == 0
    assert sorted(path.name for path in sweep.folder.iterdir()) == ["index.html", "jobs"]
    meanwhile = (sweep.folder / "index.html").read_bytes()
    analyse(sweep.folder)
    assert (sweep.folder / "index.html").read_bytes() == meanwhile


def test_a_page_of_jobs_that_got_further_meanwhile_is_not_written(sweep, monkeypatch):
    from analysis import sheets

    gather = sheets.gather

    def slow(folder):
        found = gather(folder)
        os.utime(records(sweep)[0], (0, 0))
        return found

    monkeypatch.setattr(sheets, "gather", slow)
    assert not live.refresh(sweep.folder) and not (sweep.folder / "index.html").exists()
    monkeypatch.setattr(sheets, "gather", gather)
    assert live.is_behind(sweep.folder) and live.refresh(sweep.folder) and not live.is_behind(sweep.folder)


def event(outcome: str) -> StageEvent:
    return StageEvent("scores", "0" * 16, outcome, 0.1, StageReport(), "gold")


def cpu_seconds() -> float:
    """Of the children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def until(done, what: str, seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.05)


def test_a_job_has_it_written_seldom_and_by_a_process_of_its_own(sweep, monkeypatch):
    started, now, before = [], [0.0], cpu_seconds()
    popen = subprocess.Popen
    monkeypatch.setattr(
        beside.subprocess, "Popen", lambda *args, **kwargs: started.append(popen(*args, **kwargs)) or started[-1]
    )
    page = sweep.folder / "index.html"
    with LivePage(sweep.folder, clock=lambda: now[0]) as shown:
        shown.stage(event("run"))
        shown.round()
        assert not started  # too early
        now[0] = 31.0
        shown.round()
        assert len(started) == 1
        until(lambda: started[0].poll() is not None, "the first page")
        assert started[0].returncode == 0 and page.exists()
        now[0] = 32.0
        shown.round()
        gap = shown._gap_s  # twenty times the CPU seconds of the first
        assert gap == pytest.approx(max(30, 20 * (cpu_seconds() - before)), rel=0.2)
        for moment, stages, expected in ((gap + 30, ["run"], 1), (gap + 32, [], 1), (gap + 32, ["run"], 2)):
            os.utime(page, (0, 0))
            shown._made = False
            for outcome in [*stages, "cached"]:
                shown.stage(event(outcome))
            now[0] = moment
            shown.round()
            assert len(started) == expected, moment
    assert started[1].poll() is not None  # ended with the job, if not before
    assert [path.name for path in sweep.folder.glob(".index*")] == []


def test_of_several_jobs_one_writes_it(sweep):
    live.refresh(sweep.folder)
    with LivePage(sweep.folder, clock=iter([0.0, 31.0]).__next__) as shown:
        shown.stage(event("run"))
        shown.round()
        assert shown._process is None


def test_a_page_that_cannot_be_written_is_logged_and_hinders_nothing(tmp_path, caplog):
    now = [0.0]
    caplog.set_level("INFO", logger="aipo")
    with LivePage(tmp_path / "nowhere", clock=lambda: now[0]) as shown:
        shown.stage(event("run"))
        now[0] = 31.0
        shown.round()
        until(lambda: shown._process.poll() is not None, "its end")
        shown.round()
    assert "the page was not written meanwhile" in caplog.text and "no such folder" in caplog.text


@contextmanager
def served(folder):
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def get(port: int, path: str, host: str | None = None) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", path, headers={"Host": host or f"127.0.0.1:{port}"})
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, text


def test_the_served_page_asks_its_own_server_alone_and_the_file_nobody(sweep):
    live.refresh(sweep.folder)
    html = (sweep.folder / "index.html").read_text()
    with served(sweep.folder) as port:
        status, page = get(port, "/index.html")
        _, version = get(port, "/version")
        assert status == 200 and f'data-version="{version}"' in page and get(port, "/")[1] == page
        assert page.count("connect-src &#39;self&#39;") == 1 and "connect-src" not in html
        assert page.replace(watching.asset("live.js"), "").count("fetch(") == html.count("fetch(") == 0
        os.utime(sweep.folder / "index.html", (0, 0))
        assert get(port, "/version")[1] != version
        assert get(port, "/index.html", host="evil.example")[0] == 403
        assert get(port, "/version", host="evil.example:80")[0] == 403


def test_before_the_first_score_a_page_waits(tmp_path):
    folder = tmp_path / "<b>sweep"
    folder.mkdir()
    with served(folder) as port:
        assert get(port, "/version") == (200, "none")
        status, page = get(port, "/")
    assert status == 200 and "No policy has a score yet" in page and "&lt;b&gt;sweep" in page
    assert "script-src 'none'" not in page and page.count("connect-src") == 1


def test_whoever_watches_gets_pages_while_jobs_run_and_a_sweep_that_ended_is_left(sweep, capsys):
    with pytest.raises(ValueError, match="no page yet; make it with `aipo analyse"):
        serve(sweep.folder, 0)
    live.refresh(sweep.folder)
    say(sweep, "done", at=10)
    ended = Watcher(sweep.folder)
    assert live.is_behind(sweep.folder) and not ended.look()
    say(sweep, "running", at=20)
    watcher = Watcher(sweep.folder)
    assert watcher.look()
    say(sweep, "done", at=30)
    assert watcher.look()  # its last page, though nothing runs any more
    for path in records(sweep):
        path.write_text("{")
    assert not watcher.look() and not watcher.look()
    assert capsys.readouterr().err.count("no new page: ") == 1
