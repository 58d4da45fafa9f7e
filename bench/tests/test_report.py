"""The report: summary.json in the shape that readers rely on, medians, ratios, and the files beside it."""

import json
from pathlib import Path

import pytest

from bench.runner import report
from bench.runner.figures import curve, figures, find
from bench.runner.parts import verdicts
from bench.runner.plans import RUN
from bench.runner.results import Results
from bench.runner.tables import report_table
from bench.runner.targets import Verdict

from .conftest import CANNED

MACHINE = {"cpu": "<two cores & more>", "cores": 2}
SCENARIO = {
    "name": str, "pair": (str, type(None)), "lines": int, "server": str, "concurrency": int, "rps": float,
    "p50_ms": float, "p95_ms": float, "p99_ms": float, "p999_ms": float, "errors": int,
    "django_cpu_s": float, "worker_cpu_s": float, "django_rss_mb": float, "worker_rss_mb": float,
}  # fmt: skip


@pytest.fixture
def folder(results: Results, tmp_path: Path) -> Path:
    """A written report."""
    made = tmp_path / "results" / "now"
    made.mkdir(parents=True)
    report.write(made, MACHINE, RUN, results)
    return made


def test_summary_has_exactly_the_fixed_shape(folder: Path) -> None:
    told = json.loads((folder / "summary.json").read_text())
    assert set(told) == {"machine", "scenarios", "ratios"}
    assert told["machine"] == MACHINE
    for scenario in told["scenarios"]:
        assert set(scenario) == set(SCENARIO)
        for key, kind in SCENARIO.items():
            assert isinstance(scenario[key], kind), key
    assert set(told["ratios"]) == {"gunicorn", "granian"}
    for server, ratios in told["ratios"].items():
        assert set(ratios) == {"offload", "offload_vs_tuned", "table"} | ({"report"} if server == "gunicorn" else set())
        assert all(set(ratio) == {"rps", "p99"} for ratio in ratios.values())


def test_figures_are_those_of_k6(folder: Path) -> None:
    told = json.loads((folder / "summary.json").read_text())
    baseline = next(one for one in told["scenarios"] if (one["name"], one["server"]) == ("baseline", "gunicorn"))
    took = CANNED["metrics"]["http_req_duration"]["values"]
    requests = CANNED["metrics"]["http_reqs"]["values"]["count"]
    assert (baseline["lines"], baseline["concurrency"], baseline["pair"]) == (2000, 16, None)
    assert baseline["rps"] == pytest.approx(requests / (CANNED["state"]["testRunDurationMs"] / 1000), abs=0.01)
    assert baseline["p50_ms"] == pytest.approx(took["p(50)"], abs=0.001)
    assert baseline["p999_ms"] == pytest.approx(took["p(99.9)"], abs=0.001)


def test_ratios_compare_medians(folder: Path) -> None:
    ratios = json.loads((folder / "summary.json").read_text())["ratios"]["granian"]
    assert ratios["offload"]["rps"] == pytest.approx(10, rel=0.01)
    assert ratios["offload"]["p99"] == pytest.approx(0.1, rel=0.01)
    assert ratios["offload_vs_tuned"]["rps"] == pytest.approx(10 / 3, rel=0.01)
    assert ratios["table"]["rps"] == pytest.approx(20, rel=0.01)


def test_the_report_shows_speed_and_what_a_web_process_holds(results: Results, folder: Path) -> None:
    ratios = json.loads((folder / "summary.json").read_text())["ratios"]["gunicorn"]
    assert ratios["report"]["rps"] == pytest.approx(6, rel=0.01)
    assert json.loads((folder / "details.json").read_text())["web_process_mb"]["duckdb_report"] == 303
    shown = report_table(results, figures(results))
    assert "5,000,000 order lines" in shown.title
    rows = {row[0].strip(): row[1:] for row in shown.rows}
    assert rows["ratio"] == ["", "6.0x", "5.0x", "7.0x"]
    assert rows["MB a web process"] == ["63", "48", "250", "303"]
    assert rows["MB in the worker"] == ["", "60", "", ""]


def test_failed_requests_do_not_count_as_served(results: Results) -> None:
    from .conftest import canned

    good, half = canned(), canned(failed=canned().requests // 2)
    assert half.errors == good.requests // 2
    assert half.rps == pytest.approx(good.rps / 2)


def test_latest_points_at_the_newest_run(folder: Path) -> None:
    latest = folder.parent / "latest"
    assert latest.is_symlink() and latest.resolve() == folder.resolve()
    newer = folder.parent / "later"
    newer.mkdir()
    report.point_latest(newer)
    assert latest.resolve() == newer.resolve()


def test_curve_runs_from_few_lines_to_many(results: Results) -> None:
    points = curve(figures(results))
    assert [point.lines for point in points] == [20, 200, 2_000, 10_000]
    assert {point.server for point in points} == {"gunicorn"}
    assert [point.ratio for point in points] == pytest.approx([1.1, 4, 10, 12], rel=0.01)
    # 2 CPU seconds for the canned number of requests, less the same seconds for ten times as many.
    requests = CANNED["metrics"]["http_reqs"]["values"]["count"]
    assert points[2].saved_ms == pytest.approx(2000 / requests * 0.9, rel=0.01)


def test_details_keep_every_round_and_what_a_cpu_second_buys(folder: Path, results: Results) -> None:
    told = json.loads((folder / "details.json").read_text())
    assert len(told["rounds"]) == len(results.rounds)
    plain = find(figures(results), "baseline", "gunicorn")
    assert plain is not None and plain.per_cpu_second == pytest.approx(plain.requests / 2.5)
    assert told["medians"][0]["requests_per_cpu_s"] == plain.per_cpu_second
    assert told["medians"][0]["generator_cpu_s"] == 0.5
    assert told["steadiness"]["gunicorn"]["offload"]["spread"] == pytest.approx(1.2 / 0.9, rel=0.01)


def test_page_stands_alone_and_says_something_under_each_chart(folder: Path) -> None:
    page = (folder / "report.html").read_text()
    assert page.count('class="plotly-graph-div"') == page.count("<figcaption>") == 35
    assert "<script src" not in page and "<link" not in page
    assert "serve Go" in page, "the command of every side"
    assert "&lt;two cores &amp; more&gt;" in page and "<two cores" not in page


def test_markdown_shows_every_table(folder: Path) -> None:
    text = (folder / "summary.md").read_text()
    for title in (
        "2,000 order lines",
        "As the work grows",
        "Four weeks and a region of 5,000,000 order lines a request; 16 in flight",
        "At the same arrival rate",
        "Targets",
        "Echo of 64 bytes from Python",
        "Single calls",
        "Memory that 8 Django processes add to read 2,048 MiB",
        "2,000 order lines as JSON: p50 and p99 ms by requests arriving",
        "A kill and an upgrade under load",
        "The tail under steady load",
        "Rust to Rust, 64 bytes, both sides spinning",
        "Rust to Rust, one client, longer payloads",
        "Cores busy, with spinning and without",
        "Placing a table in the arena",
        "Peers that are missing",
        "Machine",
    ):
        assert f"## {title}" in text
    assert "| gunicorn | /offload/ |" in text and "10.0x" in text


def test_one_round_says_nothing_about_steadiness(results: Results) -> None:
    results.rounds = results.rounds[:5]
    told = " ".join(one.what for one in verdicts(results, figures(results)))
    assert "p99.9 against p99" in told
    assert "against the best" not in told


def test_targets_are_judged_in_both_directions(results: Results) -> None:
    judged = {(one.target, one.what): one.verdict for one in verdicts(results, figures(results))}
    assert judged["S8", "gunicorn: offload against baseline, requests/s"] == "reached, and the aim"
    assert judged["S8", "granian: offload against tuned, requests/s"] == "reached"
    assert judged["S8", "gunicorn: offload, p99.9 of the worst of 5 rounds against the best"] == "missed"
    assert judged["S2", "echo of 64 bytes, hot: against a Python Unix-socket echo"] == "reached"
    assert judged["S12", "worker: stripped binary"] == "reached"
    assert judged["S3", "CPU of a call, client and worker, cores busy"] == "reached"
    assert judged["S1", "Rust to Rust, 64 bytes, hot: against iceoryx2"] == "reached"
    assert judged["S1", "the same against the bare cache line"] == "aim missed"
    assert judged["S2", "the same call by itself"] == "aim missed"
    assert (
        judged["S13", "client: time of its import"]
        == judged["S13", "client: memory added to a Django process"]
        == "reached"
    )
    assert judged["S5", "a resident table of 1024 MiB to a query: bytes copied"] == "aim reached"
    assert judged["S4", "placing a table of 67 MB: bytes/s against a warm memcpy"] == "reached"
    assert judged["spin", "16 clients on busy cores: calls/s with spinning against without"] == "reached"


def test_an_aim_is_no_bound_and_what_does_not_exist_is_missed() -> None:
    aim = Verdict("S1", "an aim", 3.0, None, 2.5, "x")
    assert (aim.bound, aim.verdict) == ("(aim ≤ 2.5x)", "aim missed")
    assert Verdict("S1", "an aim", 2.0, None, 2.5, "x").verdict == "aim reached"
    assert Verdict("S10", "never", None, 150, 50).verdict == "missed"


def test_what_was_measured_on_less_says_so(results: Results) -> None:
    for row in results.questions["resident"]:
        row["rows"] = 1_000_000
    results.questions["handing"]["bytes"]["huge"] = 256 << 20
    told = [one.what for one in verdicts(results, figures(results)) if one.target in ("S5", "S7")]
    assert len(told) == 4 and all(
        "(the target's: 10,000,000)" in what or "(the target's: 1024 MiB)" in what for what in told
    )


def test_a_missing_peer_is_said_and_its_targets_are_not_judged(results: Results, folder: Path) -> None:
    text = (folder / "summary.md").read_text()
    assert "| Unix socket | hot, 64 bytes, 1 clients | it closed its end |" in text
    assert "missing: not installed: No module named 'zmq'" in text
    results.transport["rows"] = [row for row in results.transport["rows"] if row["peer"] != "iceoryx2"]
    told = [one.what for one in verdicts(results, figures(results))]
    assert not any("iceoryx2" in what for what in told)
    assert any("bare cache line" in what for what in told)
