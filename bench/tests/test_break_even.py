"""The break-even: where the lines cross, and that both views are measured for what they are."""

from pathlib import Path

import pytest

from bench.runner import break_even, targets, worker
from bench.runner.owned import Owned


def points(*pairs: tuple[float, float]) -> list[dict]:
    return [{"plain": plain, "offloaded": offloaded} for plain, offloaded in pairs]


@pytest.mark.parametrize(
    ("measured", "expected"),
    [
        (points((20, 40), (60, 40)), 40),
        (points((20, 30), (30, 30), (60, 30)), 30),
        (points((50, 30), (90, 30)), 50),
        (points((10, 30), (20, 30)), None),
    ],
)
def test_where_the_lines_cross(measured: list[dict], expected: float | None) -> None:
    assert break_even.crossing(measured, "plain", "offloaded") == expected


def test_both_views_are_measured(tmp_path: Path) -> None:
    with Owned() as owned:
        engine = worker.start(owned, tmp_path / "worker.log")
        found = break_even.measure(owned, engine, tmp_path, rounds=1)
        worker.stop(owned, engine)
    assert [point["lines"] for point in found["points"]] == list(break_even.LINES)
    keys = ("plain_us", "plain_cpu_us", "offloaded_us", "offloaded_cpu_us")
    assert all(point[key] > 0 for point in found["points"] for key in keys)
    # 200 times the lines are more work for Python.
    assert found["points"][-1]["plain_us"] > 5 * found["points"][0]["plain_us"]
    assert "break-even" in break_even.row(found)[0]


def test_it_is_judged() -> None:
    (verdict,) = targets.break_even({"us": 100.0, "cpu_us": 40.0, "points": []})
    assert (verdict.target, verdict.verdict) == ("S10", "reached")
    (never,) = targets.break_even({"us": None, "cpu_us": None, "points": []})
    assert (never.said, never.verdict) == ("never", "missed")
