"""The page of the lake: complete, closed to what the data say, and opened in a real Chromium."""

from __future__ import annotations

import datetime as dt
import html.parser
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import export_to_data_lake
import metadata_utils
from ksql_lake.reporting.html import charts
from ksql_lake.reporting.html.page import page
from ksql_lake.reporting.summary import read, summary_of
from tests.chromium import Chromium, installed
from tests.conftest import ROOT
from tests.lakes import many_feeds, write_lake

NOW = dt.datetime(2025, 1, 18, 2, tzinfo=dt.UTC)
EVIL = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
VOID = {"meta", "br", "wbr", "img"}


class Outline(html.parser.HTMLParser):
    """Tags that are open, ids, scripts, and whether every tag was closed in its order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.scripts = 0
        self.tags: set[str] = set()
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.ids += [value or "" for key, value in attrs if key == "id"]
        self.links += [value or "" for key, value in attrs if key in ("src", "href")]
        self.scripts += tag == "script"
        assert not any(key.startswith("on") for key, _ in attrs), attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    lake = tmp_path_factory.mktemp("page") / "lake"
    start = ["--demo", "--start", "2025-01-15"]
    assert export_to_data_lake.main([*start, "--quiet", "--lake", str(lake), "--events", "300"]) == 0
    path = lake / "feeds" / "active" / "transaction_flattened.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "description": EVIL, "freshness_hours": 1}))
    (lake / "logs" / "runs.jsonl").open("a").write(json.dumps({
        "run": "r2", "feed": "user_transaction_summary", "type": "table", "ended": "2026-12-01T02:00:00Z",
        "seconds": 2.5, "result": "failed", "rows": 0, "bytes": 0, "retries": 3, "findings": [f"no such table {EVIL}"],
    }) + "\n")
    return lake


def made(lake: Path, target: Path) -> str:
    assert metadata_utils.main(["--html", str(target), "--lake", str(lake)]) == 0
    return target.read_text(encoding="utf-8")


def test_the_page_has_every_feed_and_asks_for_nothing(demo: Path, tmp_path: Path) -> None:
    text = made(demo, tmp_path / "lake.html")
    outline = Outline(text)
    feeds = sorted(path.name for kind in ("streams", "tables") for path in (demo / kind).iterdir())
    assert len(feeds) == 8 and {f"feed-{name}" for name in feeds} <= set(outline.ids)
    assert outline.scripts == 1 and not outline.tags & {"link", "img", "iframe"}
    assert outline.links and all(link.startswith("#feed-") for link in outline.links)
    assert not re.search(r"https?:|@import|url\(", text)
    assert "prefers-color-scheme:dark" in text and 'name="viewport"' in text
    assert "2025-01-15: 100 rows" in text and "DECIMAL(12, 2)" in text and "columns at the first export" in text


def test_what_comes_from_the_lake_is_text_and_never_markup(demo: Path, tmp_path: Path) -> None:
    text = made(demo, tmp_path / "lake.html")
    assert EVIL not in text and text.count("&lt;script&gt;") >= 3  # the description, a finding, a run
    assert "<img" not in text


def test_a_lake_with_nothing_in_it_has_a_page(tmp_path: Path) -> None:
    assert "Nothing." in made(tmp_path, tmp_path / "empty.html")


@pytest.mark.parametrize(("feeds", "days", "seconds", "megabytes"), [(1, 1000, 5.0, 0.5), (50, 400, 20.0, 4)])
def test_a_large_lake_has_a_page_of_sensible_size(
    tmp_path: Path, feeds: int, days: int, seconds: float, megabytes: float
) -> None:
    write_lake(tmp_path, many_feeds(feeds), days)
    started = time.perf_counter()
    records = read(tmp_path)
    text = page("lake", records, [summary_of(record, NOW) for record in records], NOW)
    assert time.perf_counter() - started < seconds
    assert len(text) < megabytes * 1_000_000 and text.count("<svg class=\"columns\"") <= 2 * feeds + 2
    Outline(text)


def test_the_calendar_has_a_square_a_day_and_shades_by_quartile() -> None:
    last = dt.date(2025, 1, 17)
    values: dict[dt.date, float] = {last - dt.timedelta(days=step): step + 1 for step in range(400)}
    titles = {day: f"{day}: x" for day in values}
    strips = charts.calendar(values, titles, last, "days")
    assert len(strips) == 5 and sum(strip.count(": x</title>") for strip in strips) == 400
    shades = [sum(strip.count(f'class="s{step}"') for strip in strips) for step in range(1, 5)]
    assert sum(shades) == 400 and max(shades) - min(shades) <= 2
    assert charts.calendar({}, {}, last, "days") == []
    assert charts.columns([], "x") == "" and 'height="1.5"' in charts.columns(
        [charts.Bar(1, "one"), charts.Bar(1e9, "many")], "x"
    )


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    if installed() is None:
        pytest.skip("no chromium on this machine; apt-get install chromium")
    with Chromium(tmp_path_factory.mktemp("chromium")) as chromium:
        yield chromium


def test_in_a_browser_it_sorts_and_keeps_quiet(demo: Path, tmp_path: Path, browser: Chromium) -> None:
    text = made(demo, tmp_path / "lake.html")
    browser.open(tmp_path / "lake.html")
    assert browser.run("document.title") == "lake - data lake"  # not "owned"
    assert browser.run("document.querySelectorAll('#feeds tbody tr').length") == 8
    rows = "Array.from(document.querySelectorAll('#feeds tbody tr td:nth-child(3)')).map(c => c.textContent)"
    shown = [int(cell.replace(",", "")) for cell in browser.run(rows)]
    click = "document.querySelectorAll('#feeds th button')[2].click()"
    browser.run(click)
    assert [int(c.replace(",", "")) for c in browser.run(rows)] == sorted(shown, reverse=True) != shown
    assert browser.run("document.querySelectorAll('#feeds th')[2].getAttribute('aria-sort')") == "descending"
    browser.run(click)
    assert [int(c.replace(",", "")) for c in browser.run(rows)] == sorted(shown)
    browser.run("document.querySelector('#feeds a[href=\"#feed-payment_method_totals\"]').click()")
    time.sleep(0.2)
    assert browser.run("document.getElementById('feed-payment_method_totals').open") is True
    assert browser.problems == [] and "<title>" in text


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [390, 1280])
def test_in_a_browser_it_fits_and_can_be_read(
    demo: Path, tmp_path: Path, browser: Chromium, width: int, dark: bool
) -> None:
    made(demo, tmp_path / "lake.html")
    browser.open(tmp_path / "lake.html", width, 900, dark=dark)
    browser.run("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    assert browser.run("document.documentElement.scrollWidth") == width
    for element in ("body", ".soft", ".error", ".warning", ".good", "th button", "figcaption"):
        contrast = browser.run(CONTRAST.replace("ELEMENT", element))
        assert contrast is None or contrast >= 4.5, (element, contrast)
    assert browser.problems == []


def test_long_names_and_many_feeds_fit_a_telephone(tmp_path: Path, browser: Chromium) -> None:
    write_lake(tmp_path, ["x" * 90, "a_long_name_" * 8, *many_feeds(40)], 100)
    made(tmp_path, tmp_path / "lake.html")
    browser.open(tmp_path / "lake.html", 390, 900)
    assert browser.run("document.querySelectorAll('#feeds tbody tr').length") == 42
    browser.run("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    assert browser.run("document.documentElement.scrollWidth") == 390 and browser.problems == []


@pytest.fixture(scope="module")
def months(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two feeds with three months of days, one with three days, and runs with much to say."""
    lake = tmp_path_factory.mktemp("months") / "lake"
    lake.mkdir()
    write_lake(lake, many_feeds(3), 90)
    path = lake / "streams" / "feed_0002" / "_metadata.json"
    state = json.loads(path.read_text())
    path.write_text(json.dumps({**state, "files": state["files"][-3:], "partitions": state["partitions"][-3:]}))
    said = "at most 512 rows of partition 3 expired before they were exported; " * 3
    with (lake / "logs" / "runs.jsonl").open("a") as file:
        for day in (16, 17):
            file.write(json.dumps({"run": f"n{day}", "feed": "feed_0001", "ended": f"2025-01-{day}T02:00:00Z",
                                   "seconds": 3, "result": "findings", "findings": [said, "/path" * 30]}) + "\n")
    return lake


@pytest.mark.parametrize("width", [390, 500, 700, 1280])
def test_nothing_is_clipped_and_findings_can_be_read(
    months: Path, tmp_path: Path, browser: Chromium, width: int
) -> None:
    made(months, tmp_path / "x.html")
    browser.open(tmp_path / "x.html", width, 900)
    browser.run("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    assert browser.run(CLIPPED) == []
    said = browser.run(
        "Array.from(document.querySelectorAll('#runs td')).filter(c => c.textContent.includes('512 rows') "
        "&& c.offsetWidth).map(c => c.offsetWidth)")
    assert said and max(said) >= (360 if width == 1280 else 100)


def test_axes_end_where_the_data_end(months: Path, tmp_path: Path, browser: Chromium) -> None:
    made(months, tmp_path / "x.html")
    browser.open(tmp_path / "x.html", 1280, 900)
    browser.run("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    gaps = browser.run(
        "Array.from(document.querySelectorAll('svg.columns')).map(s => { var b = s.lastElementChild.firstChild"
        ".getBoundingClientRect(), a = s.getBoundingClientRect(); return Math.abs(a.right - b.right); })")
    assert len(gaps) >= 7 and max(gaps) < 1.5


def test_times_on_the_page_say_that_they_are_utc(months: Path, tmp_path: Path) -> None:
    text = made(months, tmp_path / "x.html")
    assert ">2025-01-17 02:00Z<" in text and "2025-01-18 01:00Z" in text


def test_the_page_opens_in_the_browser(
    months: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    opened = tmp_path / "opened"
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" > {opened}\n')
    browser.chmod(0o755)
    page = str(tmp_path / "x y.html")
    command = [sys.executable, "metadata_utils.py", "--html", page, "--open", "--lake", str(months)]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, "BROWSER": f"{browser} %s"}, check=True,
                          capture_output=True, text=True)
    assert opened.read_text() == f"file://{tmp_path}/x%20y.html\n" and not done.stderr
    with pytest.raises(SystemExit):
        metadata_utils.main(["--report", "--open", "--lake", str(months)])


# texts that reach beyond the window, or beyond the box that holds them
CLIPPED = """Array.from(document.querySelectorAll("main *")).filter(function (e) {
  var r = e.getBoundingClientRect(), s = getComputedStyle(e);
  if (!r.width || s.display === "none") { return false; }
  var hidden = s.overflowX !== "visible" && e.scrollWidth > e.clientWidth + 1;
  return r.right > innerWidth + 0.5 || r.left < -0.5 || hidden;
}).map(function (e) { return e.tagName + "." + e.getAttribute("class") + " " + e.textContent.slice(0, 40); })"""


# of the text's colour against the page's, by the formula of WCAG 2
CONTRAST = """(function () {
  function light(colour) {
    var parts = colour.match(/[\\d.]+/g).slice(0, 3).map(function (part) {
      var c = part / 255; return c <= 0.03928 ? c / 12.92 : Math.pow((c + 0.055) / 1.055, 2.4);
    });
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
  }
  var found = document.querySelector("ELEMENT");
  if (!found) { return null; }
  var a = light(getComputedStyle(found).color), b = light(getComputedStyle(document.body).backgroundColor);
  return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
})()"""


def test_the_finished_page_is_written_whole_or_not_at_all(
    demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    target = tmp_path / "lake.html"
    target.write_text("before")
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    assert metadata_utils.main(["--html", str(target), "--lake", str(demo)]) == 1
    assert target.read_text() == "before" and list(tmp_path.glob(".*inprogress")) == []
    assert "No space left" in capsys.readouterr().err
