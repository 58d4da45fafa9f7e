"""Calls in flight from one event loop and from many processes: each point is measured, and the knee is found."""

import json
import subprocess
import sys
from array import array
from pathlib import Path

import pytest

from bench.runner import in_flight, worker
from bench.runner.owned import Owned
from bench.runner.paths import ROOT


def test_every_point_is_measured_and_nothing_is_left(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bench", "in-flight", "--check", "--results", str(tmp_path)]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    (folder,) = (path for path in tmp_path.iterdir() if path.is_dir())
    found = json.loads((folder / "in_flight.json").read_text())
    assert [one["name"] for one in found["series"]] == list(in_flight.TITLES.values())
    for series in found["series"]:
        assert [one["in_flight"] for one in series["points"]] == list(in_flight.CHECK.in_flight)
    echo, orders = (series["points"] for series in found["series"])
    assert all(one["calls_per_s"] > 0 and one["cpu_us"] > 0 for one in (*echo, *orders))
    assert echo[0]["p50_us"] < orders[0]["p50_us"], "2,000 lines are more work than an echo"
    assert echo[0]["p50_us"] < echo[-1]["p50_us"], "those in flight wait for each other"
    clients = found["clients"]["points"]
    assert [one["clients"] for one in clients] == list(in_flight.CHECK.clients)
    assert all(0 < one["client_cpu_us"] < one["cpu_us"] for one in clients), "the worker's CPU counts too"
    assert found["left_behind"] == []
    assert "knee at" in (folder / "in_flight.md").read_text()


def test_more_are_in_flight_than_a_workers_queue_holds_by_itself(tmp_path: Path) -> None:
    with Owned() as owned:
        engine = worker.start(owned, tmp_path / "worker.log", ("--queue", str(in_flight.QUEUE)))
        body = tmp_path / "body"
        body.write_bytes(in_flight.PAYLOAD)
        found = in_flight.loop(owned, engine, tmp_path, in_flight.ECHO, body, 1024, 0.3)
        assert found["in_flight"] == 1024 and found["calls_per_s"] > 0
        worker.stop(owned, engine)


def test_a_figure_that_a_round_does_not_carry_is_not_told() -> None:
    few, many = array("q", [1_000] * 50), array("q", range(0, 2_000_000, 1_000))
    one = in_flight.figures(few, 1.0, 0.001)
    assert one == {"calls_per_s": 50, "p50_us": 1.0, "p99_us": None, "cpu_us": pytest.approx(20)}
    two = in_flight.figures(many, 1.0, 0.001)
    assert (two["p50_us"], two["p99_us"]) == (1000, 1980)
    assert in_flight.middle([one, two])["p99_us"] is None
    assert in_flight.middle([two, two])["p99_us"] == 1980


def test_the_knee_is_the_fewest_that_reach_almost_all() -> None:
    points = [{"clients": n, "calls_per_s": rate} for n, rate in ((1, 10), (4, 40), (16, 96), (64, 100), (256, 90))]
    assert in_flight.knee(points, "clients") == 16
