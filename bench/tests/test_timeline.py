"""The timeline: every request has its record, failures are counted where they happen, and both moments are carried out."""

import json
import subprocess
import sys
from pathlib import Path

from bench.runner import timeline
from bench.runner.paths import ROOT


def canned() -> dict:
    """A hundred requests, one every 100 ms: a kill after three seconds, an upgrade after six; one fails."""
    records = [(50.0 + number / 10, 200.0 if number == 30 else 2.0, timeline.ANSWERED) for number in range(100)]
    records[31] = (records[31][0], 5.0, "HTTP 503, busy")
    moments = [timeline.Moment(timeline.KILL, 53.05, 53.2), timeline.Moment(timeline.UPGRADE, 56.0, 56.1)]
    place = timeline._place(timeline.PLACES[1], 10.0, 25.0, records[::-1], moments)
    return {"plan": {"seconds": 10.0}, "places": [place], "left_behind": []}


def test_failures_and_the_slowest_count_at_the_moment_they_belong_to() -> None:
    (place,) = canned()["places"]
    assert (place["sent"], place["failed"]) == (100, 1)
    assert place["requests"]["due_s"][:3] == [0.0, 0.1, 0.2], "seconds count from the first due request"
    kill, upgrade = place["moments"]
    assert (kill["at_s"], kill["back_s"]) == (3.05, 3.2)
    # The one that was due 50 ms before and still on its way belongs to it.
    assert (kill["failed"], kill["slowest_ms"]) == (1, 200.0)
    assert (upgrade["failed"], upgrade["slowest_ms"]) == (0, 2.0)
    assert timeline.calm_p99(place) == 2.0


def test_a_failed_request_misses_the_target() -> None:
    found = canned()
    assert [one.verdict for one in timeline.verdicts(found)] == ["missed"]
    found["places"][0]["failed"] = 0
    assert [one.verdict for one in timeline.verdicts(found)] == ["reached"]
    assert [row[1] for row in timeline.table(found).rows] == [timeline.KILL, timeline.UPGRADE]


def test_a_real_worker_is_killed_and_upgraded_and_no_request_fails(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bench", "timeline", "--check", "--results", str(tmp_path)]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=400)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    (folder,) = (path for path in tmp_path.iterdir() if path.is_dir())
    found = json.loads((folder / "timeline.json").read_text())
    assert [one["place"] for one in found["places"]] == list(timeline.PLACES)
    for place in found["places"]:
        requests = place["requests"]
        assert place["sent"] == len(requests["due_s"]) == len(requests["ms"]) == len(requests["outcome"])
        assert place["sent"] >= 0.9 * place["rate"] * found["plan"]["seconds"]
        assert requests["due_s"] == sorted(requests["due_s"]) and min(requests["ms"]) >= 0
        assert set(requests["outcome"]) == {timeline.ANSWERED} and place["failed"] == 0
        assert [moment["what"] for moment in place["moments"]] == [timeline.KILL, timeline.UPGRADE]
        assert all(0 < moment["at_s"] < moment["back_s"] for moment in place["moments"])
        assert place["moments"][0]["requests"] > 0, "the load was there when it happened"
    assert found["left_behind"] == []
