"""The page in headless Chromium: no script fails, every chart is drawn, and its numbers are those of the JSON beside it."""

import json
from pathlib import Path

import pytest

from bench.runner import report
from bench.runner.plans import RUN
from bench.runner.results import Results

from .shown import assert_shown

SECTIONS = {
    "latency-orders", "latency-table", "timeline-client", "timeline-wsgi", "memory",
    "peers-orders", "peers-table", "concurrency-orders", "concurrency-table", "percentiles-orders", "percentiles-table",
    "throughput-orders", "throughput-table", "distribution-orders-gunicorn", "distribution-orders-granian",
    "distribution-table-gunicorn", "distribution-table-granian", "growth", "report-speed", "report-memory",
    "break-even", "echo", "ablation-echo", "ablation-order_summary", "transport-sizes", "transport-clients",
    "in-flight-0", "in-flight-1", "in-flight-2", "rows",
    "resident", "tail-percentiles", "overload", "stalls-the-client-library", "stalls-django-under-granian",
}  # fmt: skip


@pytest.fixture
def folder(results: Results, tmp_path: Path) -> Path:
    """The report of a run in which everything was measured."""
    made = tmp_path / "now"
    made.mkdir()
    report.write(made, {"cpu": "two cores"}, RUN, results)
    return made


def test_every_chart_is_drawn_with_the_numbers_of_the_json(folder: Path) -> None:
    assert assert_shown(folder) == SECTIONS


def test_a_page_that_was_not_measured_whole_shows_the_rest(results: Results, tmp_path: Path) -> None:
    for name in ("load", "peers", "tail", "questions", "in_flight", "transport", "memory"):
        setattr(results, name, None)
    report.write(tmp_path, {"cpu": "two cores"}, RUN, results)
    shown = assert_shown(tmp_path)
    assert {"timeline-client", "throughput-orders", "overload"} < shown and "memory" not in shown


def test_the_page_is_drawn_again_from_what_was_stored(folder: Path) -> None:
    first = {name: (folder / name).read_text() for name in (report.PAGE, "summary.md")}
    for name in first:
        (folder / name).unlink()
    assert report.draw(folder) == folder / report.PAGE
    assert {name: (folder / name).read_text() for name in first} == first


def test_a_broken_script_and_a_missing_chart_are_seen(folder: Path) -> None:
    page = folder / report.PAGE
    page.write_text(page.read_text().replace("<body>", "<body><script>nobody()</script>"))
    with pytest.raises(AssertionError, match="nobody is not defined"):
        assert_shown(folder)
    page.write_text(page.read_text().replace("<script>nobody()</script>", ""))
    told = json.loads((folder / "details.json").read_text())
    told["peers"]["workloads"][0]["sides"][0]["rps"] += 1
    (folder / "details.json").write_text(json.dumps(told))
    with pytest.raises(AssertionError, match="peers-orders"):
        assert_shown(folder)
