"""The page in Chromium: it opens, sorts, filters, links, obeys the keyboard, loads nothing and runs no text."""

from __future__ import annotations

import shutil
import threading
import time
from dataclasses import replace
from functools import partial
from http.server import ThreadingHTTPServer

import pytest

from aipo.command.viewing import Handler
from analysis import page
from analysis.collect import collect
from analysis.summary import benchmarks
from analysis.tables import score_table

from conftest import empty_sweep  # isort: skip
from page_sweep import HOSTILE, with_texts  # isort: skip

pytestmark = [pytest.mark.browser, pytest.mark.slow]
CHROMIUM = shutil.which("chromium")
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking")
LONG = "AlpacaEval 2, length-controlled (first 10 questions only), judge gold"
N_QUESTIONS = 3400  # of three different answers each: 10,200 samples


@pytest.fixture(scope="module")
def browser():
    sync = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install -e '.[dev]'")
    if CHROMIUM is None:
        pytest.skip("needs Debian's package chromium")
    with sync.sync_playwright() as playwright:
        opened = playwright.chromium.launch(
            executable_path=CHROMIUM, args=[*FLAGS, "--disable-component-update", "--disable-sync"]
        )
        yield opened
        opened.close()


def write(folder, **options):
    sweep = collect(with_texts(folder, **options).folder)
    tables = [replace(table, title=LONG) for name in benchmarks(sweep) if (table := score_table(sweep, name, name))]
    return page.write_page(sweep, tables, page.verdict(sweep, benchmarks(sweep)), [])


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    return write(tmp_path_factory.mktemp("small")).as_uri()


@pytest.fixture
def tab(browser):
    """A tab that fails the test for every request but the page's own, every error, and every dialog."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    opened, seen = context.new_page(), []
    opened.on("request", lambda request: seen.append(request.url))
    opened.on("pageerror", lambda error: seen.append(f"error {error}"))
    opened.on("console", lambda message: seen.append(message.text))
    opened.on("dialog", lambda dialog: seen.append("dialog"))
    yield opened
    assert {address.partition("#")[0] for address in seen} == {opened.url.partition("#")[0]}
    context.close()


def go(tab, url, view=""):
    tab.goto(url + view)
    tab.wait_for_selector("html[data-ready]")
    return tab


def soon(tab, done):
    """Wait in steps of this process: the page's policy lets nothing be evaluated in it for longer."""
    for _ in range(300):
        if done():
            return
        tab.wait_for_timeout(100)
    raise AssertionError("not within 30 s")


def test_a_hostile_completion_is_text(tab, url):
    go(tab, url, "#samples?q=0&r=0")
    tab.wait_for_selector(".card .text")
    tab.get_by_role("button", name="show all").first.click()
    shown = tab.locator(".card .text").first.inner_text()
    assert "</script></style><script>document.title='owned'</script><img src=x" in shown and "{{ 7*7 }}" in shown
    assert "U+202E" in shown and "\u202e" not in shown and "U+2028" in shown
    assert len(shown) > 50_000 and len(HOSTILE) > 50_000
    assert tab.title().startswith("Samples") and tab.locator("main img").count() == 0


def test_sorting_and_filtering_a_table_and_their_link(tab, url):
    go(tab, url, "#tables")
    rows = lambda: tab.locator("#points tbody tr").all_inner_texts()  # noqa: E731
    assert len(rows()) == 4
    tab.locator("#points thead button", has_text="round").click()
    tab.locator("#points thead button", has_text="round").click()
    assert tab.locator("#points th[aria-sort=descending]").inner_text().startswith("round")
    assert ["base" in row.split("\t")[2] for row in rows()] == [False, False, True, True]
    tab.get_by_label("Filter Every policy").fill("aipo 3338")
    assert len(rows()) == 1 and "AIPO" in rows()[0]
    address = tab.url
    tab.goto("about:blank")
    go(tab, address)
    assert len(rows()) == 1


def test_samples_search_filters_keys_and_deep_links(tab, url):
    go(tab, url, "#samples")
    tab.wait_for_selector(".list button")
    tab.wait_for_selector("section.row h3")
    headings = [text.removeprefix("After round ") for text in tab.locator("section.row h3").all_inner_texts()]
    pressed = tab.locator("button[aria-pressed=true]").all_inner_texts()
    rounds = [text for text in pressed if text.isdigit()]
    assert rounds and [text for text in headings if text.isdigit()] == rounds
    assert tab.locator(".list button").count() == 3
    tab.keyboard.press("j")
    assert "q=1" in tab.url and tab.locator(".list [aria-current]").inner_text().startswith("1")
    tab.keyboard.press("/")
    tab.keyboard.type("cut shor")
    assert tab.locator(".list button").count() == 1
    tab.locator("#search").fill("")
    tab.get_by_label("Filter").select_option("truncated")
    assert tab.locator(".list button").all_inner_texts()[0].startswith("2")
    tab.get_by_role("button", name="Training prompts").click()
    tab.wait_for_selector(".card.chosen")
    assert tab.locator(".card h4 span:first-child").all_inner_texts() == ["rank 1: chosen", "rank 2: rejected"]
    assert tab.locator(".card.chosen mark").count() == 1
    tab.go_back()
    assert "kind=training" not in tab.url


def test_a_plot_is_walked_and_opened_with_the_keyboard(tab, url):
    go(tab, url)
    tab.locator("#charts svg").first.focus()
    tab.keyboard.press("ArrowRight")
    assert "length-controlled win rate" in tab.locator("#status").inner_text()
    tab.keyboard.press("Enter")
    tab.wait_for_selector(".card .text")
    assert "#samples?b=alpaca_eval" in tab.url


def test_a_base_model_of_several_seeds_counts_once_as_in_the_tables(tab, tmp_path):
    sweep = empty_sweep(tmp_path)
    first, second = (sweep.job("dpo", seed, iterations=1, benchmarks=("gold",)) for seed in (0, 1))
    second["points"][0] = first["points"][0]
    sweep.write(second, "1")
    sweep.job("dpo", 2, iterations=1, benchmarks=("gold",), overrides=("model.seed=1",))
    found = collect(sweep.folder)
    base = score_table(found, "gold").data.iloc[0]
    path = page.write_page(found, [], page.verdict(found, ["gold"]), [])
    go(tab, path.as_uri()).locator("#charts svg").first.focus()
    said = tab.locator("#status")
    soon(tab, lambda: tab.keyboard.press("ArrowRight") or "base model, round base" in said.inner_text())
    assert "mean of 2 base models or seeds" in said.inner_text()
    assert f"mean length (tokens): {base['length']:.3g}" in said.inner_text()


def test_names_of_policies_that_end_in_one_place_are_read_below_each_other(tab, url):
    go(tab, url)
    names = tab.locator("#charts svg").first.locator("text.end")
    assert sorted(names.all_text_contents()) == ["AIPO", "DPO"]
    upper, lower = sorted((one.bounding_box() for one in names.all()), key=lambda box: box["y"])
    assert upper["x"] == lower["x"] and 0 < upper["height"] <= lower["y"] - upper["y"] + 2


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_needs_no_sideways_scrolling(browser, url, scheme):
    context = browser.new_context(viewport={"width": 375, "height": 800}, color_scheme=scheme)
    opened = context.new_page()
    for view in ("overview", "training", "samples", "tables", "config", "provenance"):
        go(opened, url, f"#{view}")
        assert opened.evaluate("document.documentElement.scrollWidth <= innerWidth"), view
    assert (opened.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)") == (
        scheme == "light"
    )
    context.close()


def test_ten_thousand_samples(tab, tmp_path):
    """The script's own time for a search over 10,200 texts, which other processes' load hardly touches."""
    large = write(tmp_path, objectives=("dpo", "aipo"), n_questions=N_QUESTIONS).as_uri()
    started = time.perf_counter()
    go(tab, large)
    print(f"opened in {time.perf_counter() - started:.2f} s")
    go(tab, large, "#samples")
    tab.wait_for_selector(".list button")
    tab.locator("#search").fill(f"answer {N_QUESTIONS - 1} of")
    soon(tab, lambda: tab.locator(".list button").count() == 1)
    assert "10,200 texts searched" in tab.locator("#found").inner_text()
    filtered_ms = float(tab.get_attribute("#view-samples", "data-filter-ms"))
    print(f"filtered in {filtered_ms} ms")
    assert filtered_ms < 1000


def test_the_served_page_takes_the_next_one_and_stays_where_it_was(browser, tmp_path):
    """Under the policy that stands in the page: no request but to its own server, and the view of before."""
    page_file = write(tmp_path)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(page_file.parent))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        context = browser.new_context(viewport={"width": 800, "height": 300})
        opened, asked, errors = context.new_page(), [], []
        opened.on("request", lambda request: asked.append(request.url.partition("#")[0]))
        opened.on("console", lambda message: errors.append(message.text))
        opened.on("pageerror", lambda error: errors.append(str(error)))
        address = f"http://127.0.0.1:{server.server_address[1]}"
        go(opened, f"{address}/index.html", "#tables")
        opened.evaluate("scrollTo(0, 120)")
        page_file.write_text(page_file.read_text().replace("jobs done", "jobs done, more of them"))
        soon(opened, lambda: "more of them" in opened.inner_text("header"))
        soon(opened, lambda: opened.evaluate("scrollY") == 120)
        assert opened.url.endswith("#tables") and errors == []
        assert set(asked) == {f"{address}/index.html", f"{address}/version"}
        opened.get_by_label("Filter Every policy").fill("aipo")
        page_file.write_text(page_file.read_text().replace("more of them", "all of them"))
        opened.wait_for_timeout(5000)
        assert "more of them" in opened.inner_text("header")  # whoever types is not disturbed
        context.close()
        server.shutdown()
