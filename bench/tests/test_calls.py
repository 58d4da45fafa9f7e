"""Single calls: answers are compared first, every peer has its rows, and one that is not there is said."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.runner import calls, echo, worker
from bench.runner.errors import BenchError
from bench.runner.owned import Owned
from bench.runner.worker import Worker


@pytest.fixture
def owned() -> Iterator[Owned]:
    """Ends what the test starts."""
    with Owned() as begun:
        yield begun


@pytest.fixture
def engine(owned: Owned, tmp_path: Path) -> Worker:
    """A worker."""
    return worker.start(owned, tmp_path / "worker.log")


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """So few calls that the figures mean nothing."""
    for name, count in (("HOT_CALLS", 20), ("WARM_CALLS", 1), ("SLEEPY_CALLS", 2)):
        monkeypatch.setattr(calls, name, count)


@pytest.mark.usefixtures("short")
def test_every_peer_has_a_row_for_each_way(owned: Owned, engine: Worker, tmp_path: Path) -> None:
    found = calls.measure(owned, engine, tmp_path, rounds=2)
    assert {(row["way"], row["peer"]) for row in found["rows"]} == {
        (way, peer)
        for way in ("hot", "hot, a core each", "asleep")
        for peer in ("molt", "Unix socket", "multiprocessing.Pipe", "pyzmq REQ/REP")
    }
    assert found["missing"] == {}
    for row in found["rows"]:
        assert 0 < row["p50_from_us"] <= row["p50_us"] <= row["p50_to_us"]
        assert row["p99_us"] is row["p999_us"] is None, "forty calls carry neither"
        assert row["rounds"] == 2


@pytest.mark.usefixtures("short")
def test_peers_have_their_turns_in_another_order_each_round(
    owned: Owned, engine: Worker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []
    hot = calls._hot
    monkeypatch.setattr(calls, "_hot", lambda ask: asked.append(ask) or hot(ask))
    calls.measure(owned, engine, tmp_path, rounds=3)
    rounds = [tuple(map(id, asked[at : at + 4])) for at in (0, 8, 16)]  # the four after each are held apart
    assert len({frozenset(one) for one in rounds}) == 1 and len(set(rounds)) > 1


def test_held_apart_each_side_has_its_cores_and_gets_all_back(engine: Worker) -> None:
    allowed = os.sched_getaffinity(0)
    threads = [int(thread) for thread in os.listdir(f"/proc/{engine.pid}/task")]
    with calls.apart(engine.pid):
        mine, theirs = os.sched_getaffinity(0), [os.sched_getaffinity(thread) for thread in threads]
        assert len(mine) == 1 and all(cores == (allowed - mine or mine) for cores in theirs)
    assert os.sched_getaffinity(0) == allowed
    assert all(os.sched_getaffinity(thread) == allowed for thread in threads)


@pytest.mark.usefixtures("short")
def test_a_peer_that_is_not_installed_is_said(
    owned: Owned, engine: Worker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "zmq", None)  # what import finds for a package that is not there
    monkeypatch.delitem(sys.modules, "bench.runner.echo.zeromq", raising=False)
    found = calls.measure(owned, engine, tmp_path, rounds=1)
    assert "not installed" in found["missing"]["pyzmq REQ/REP"]
    assert {row["peer"] for row in found["rows"]} == {"molt", *echo.MODULES} - {"pyzmq REQ/REP"}


def test_a_wrong_answer_ends_the_measurement_before_it_begins() -> None:
    calls.check("an echo", bytes)
    for wrong in (lambda payload: payload[1:], lambda payload: calls.PAYLOAD, lambda payload: payload + b"x"):
        with pytest.raises(BenchError, match="an echo does not echo"):
            calls.check("an echo", wrong)


def test_processor_time_of_a_call_is_that_of_both_sides(owned: Owned, engine: Worker, tmp_path: Path) -> None:
    found = calls.saturated(owned, engine, tmp_path, seconds=0.3)
    assert found["calls"] > 0 and found["client_us"] > 0 and found["worker_us"] > 0
    assert found["cpu_us"] == pytest.approx(found["client_us"] + found["worker_us"])


def test_percentiles_are_of_all_calls_and_medians_of_the_rounds() -> None:
    told = calls.figures([[1_000 * number + add for number in range(1, 1002)] for add in (0, 2_000, 1_000)])
    assert told == {
        "p50_us": 502, "p99_us": 992, "p999_us": None, "mean_us": 502, "p50_from_us": 501, "p50_to_us": 503, "rounds": 3,
    }  # fmt: skip
    assert calls.figures([[1_000] * 10_000])["p999_us"] == 1
    assert calls.figures([[1_000] * 999])["p99_us"] is None
