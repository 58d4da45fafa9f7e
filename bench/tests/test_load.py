"""Latency against offered load: all sides at the same rates, nobody beyond the rate at which it falls behind."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench.runner import load, sides
from bench.runner.k6 import Generated
from bench.runner.owned import Owned
from bench.runner.paths import ROOT


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the shortest plan."""
    results = tmp_path_factory.mktemp("results")
    command = [sys.executable, "-m", "bench", "load", "--check", "--results", str(results)]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=500)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    (one,) = (path for path in results.iterdir() if path.is_dir())
    return one


def test_all_sides_meet_the_same_rates_and_users(folder: Path) -> None:
    found = json.loads((folder / "load.json").read_text())
    by = {workload["group"]: workload for workload in found["workloads"]}
    names = {group: [one["name"] for one in workload["sides"]] for group, workload in by.items()}
    assert names == {"orders": ["molt", "tuned Python"], "table": ["molt", "numpy"]}
    for workload in by.values():
        asked = [[point["rate"] for point in one["points"]] for one in workload["sides"]]
        fastest = max(one["capacity"] for one in workload["sides"])
        longest = max(asked, key=len)
        assert longest == [pytest.approx(share * fastest, rel=0.01) for share in load.CHECK.shares]
        assert all(rates == longest[: len(rates)] for rates in asked), "the same rates for all"
        for one in workload["sides"]:
            assert one["compared"] > 3 and one["how"] and one["command"]
            assert [at["users"] for at in one["concurrency"]] == list(load.CHECK.users)
            assert all(at["rps"] > 0 for at in one["concurrency"])
            for point in one["points"]:
                assert point["samples"] > 0 and point["errors"] == 0 and point["generator_cpu_s"] > 0
                assert point["p9999_ms"] is None, "a second has no requests enough for it"
            # Whoever fell behind was not asked for more.
            assert all(point["answered"] >= load.KEPT_UP * point["rate"] for point in one["points"][:-1])
    assert found["left_behind"] == [] and found["seed"] == 1
    assert "by requests arriving" in (folder / "load.md").read_text()


def generated(requests: int, seconds: float, p99: float) -> Generated:
    """What k6 might have seen."""
    latency = {"p(50)": p99 / 2, "p(99)": p99, "p(99.9)": 2 * p99, "p(99.99)": 3 * p99, "max": 4 * p99}
    return Generated(requests, 10, seconds, latency, 7, 0.5)


def test_what_is_answered_late_does_not_count_as_kept_up() -> None:
    late = load.point(generated(1010, 20.0, 900.0), 1.0, 100.0, 10.0)
    assert late["answered"] == 50, "the backlog was answered when no more requests came"
    assert (late["p99_ms"], late["p999_ms"], late["max_ms"], late["errors"], late["not_started"]) == (
        900,
        None,
        3600,
        10,
        7,
    )
    side = load.Loaded(SimpleNamespace(name="side"), "1")
    assert side.keeps_up
    side.points.append(late)
    assert not side.keeps_up and load.cell(late) == "450.0 / 900.0 *"
    assert load.cell(None) == ""


def told(name: str, server: str, *p99s: float | None, behind: int = 0) -> dict:
    """A side that was asked for 10, 20, 30 ... requests a second, and fell behind at the last ones."""
    points = [
        {"rate": 10.0 * number, "p99_ms": p99, "answered": 10.0 * number * (1 if number <= len(p99s) - behind else 0.5)}
        for number, p99 in enumerate(p99s, 1)
    ]
    return {"name": name, "server": server, "points": points}


def test_p99_is_judged_at_the_highest_rate_that_both_keep_up_with() -> None:
    sides = [
        told("molt", "gunicorn", 1.0, 2.0, 3.0, 4.0), told("plain Python", "gunicorn", 10.0, 40.0, 900.0, behind=1),
        told("molt, granian", "granian", 1.0, None), told("plain Python, granian", "granian", 2.0, 8.0),
    ]  # fmt: skip
    found = {"workloads": [{"group": "orders", "sides": sides}]}
    assert [(one.what.split(",")[0], one.measured, one.verdict) for one in load.verdicts(found)] == [
        ("gunicorn: orders", 0.05, "reached, and the aim"),
        ("granian: orders", 0.5, "missed"),
    ]


def test_a_low_rate_lasts_until_its_requests_carry_a_p99() -> None:
    plan = load.Plan(seconds=4.0, requests=1000)
    assert [plan.lasting(rate) for rate in (1000.0, 125.0, 10.0)] == [4.0, 8.0, 12.0]
    assert load.QUICK.lasting(1.0) == load.QUICK.seconds


def test_a_side_that_dies_is_told_and_the_others_are_loaded_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = sides.load

    def deadly(stage: Any, side: Any, workload: Any, seconds: float, users: int, rate: float | None = None) -> Any:
        if side.child.what == "numpy_view" and rate is not None:
            side.child.stop(0.1)
        return whole(stage, side, workload, seconds, users, rate)

    monkeypatch.setattr(sides, "load", deadly)
    with Owned() as owned:
        found = load.measure(owned, tmp_path, replace(load.CHECK, names=("plain Python", "numpy")))
    (name, reason), *others = found["missing"].items()
    assert (name, others) == ("numpy (table)", []) and reason.startswith("died under load: "), found["missing"]
    told = {workload["group"]: [one["name"] for one in workload["sides"]] for workload in found["workloads"]}
    assert told == {"orders": ["plain Python"], "table": ["plain Python"]} and found["left_behind"] == []
    assert all(one["points"] and one["concurrency"] for workload in found["workloads"] for one in workload["sides"])
