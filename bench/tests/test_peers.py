"""The peers: each starts on a free port and answers as plain Python does; the run times, shows and judges them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.peers import catalog, golang
from bench.peers.peer import Missing, Peer, Stage
from bench.runner import peers, worker
from bench.runner.errors import BenchError
from bench.runner.owned import Owned

AVAILABLE, MISSING = catalog.available()


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A worker for all of them."""
    logs = tmp_path_factory.mktemp("logs")
    with Owned() as owned:
        yield Stage(owned, logs, worker.start(owned, logs / "worker.log"))


@pytest.fixture(scope="module")
def expected(stage: Stage) -> dict:
    """What plain Python answers, for each workload."""
    return {workload.group: (workload, peers.right_answers(stage, workload)) for workload in peers.workloads()}


@pytest.mark.parametrize("peer", catalog.PEERS, ids=lambda peer: f"{peer.group}-{peer.name}")
def test_it_answers_as_plain_python_does(peer: Peer, stage: Stage, expected: dict) -> None:
    if peer not in AVAILABLE:
        pytest.skip(MISSING[f"{peer.name} ({peer.group})"])
    workload, right = expected[peer.group]
    one = peers.Measured(peer, AVAILABLE[peer], side=peer.start(stage, 1))
    try:
        assert peers.check(one, workload, right) == len(right) > 3
        statuses = {status for _, (status, _) in right}
        assert statuses == {200, 400}
    finally:
        for thing in (one.side.child, *one.side.ends):
            stage.owned.end(thing)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """A load of molt and of numpy through the runner."""
    plan = peers.Plan(users=2, rounds=1, seconds=1.0, search=False, names=("molt", "numpy"))
    with Owned() as owned:
        return peers.measure(owned, tmp_path_factory.mktemp("logs"), plan)


def test_the_run_times_all_sides(found: dict) -> None:
    assert found["left_behind"] == []
    sides = {(workload["group"], one["name"]): one for workload in found["workloads"] for one in workload["sides"]}
    assert set(sides) == {("orders", "molt"), ("table", "molt"), ("table", "numpy")}
    for one in sides.values():
        assert one["errors"] == one["arrival"]["errors"] == 0
        assert 0 < one["rps_from"] <= one["rps"] <= one["rps_to"]
        assert 0 < one["p50_ms"] <= one["p99_ms"]
        assert one["cpu_s"] > 0 and one["generator_cpu_s"] > 0 and one["requests_per_cpu_s"] > 0
        assert one["version"] and one["how"] and one["command"] and one["compared"]
    for workload in found["workloads"]:
        slowest = min(one["rps"] for one in workload["sides"])
        assert workload["arriving"] == pytest.approx(0.6 * slowest, rel=0.01)


def test_it_is_shown_and_judged(found: dict) -> None:
    table = next(workload for workload in found["workloads"] if workload["group"] == "table")
    winner = {**table["sides"][0], "name": "Polars", "rps": 10 * max(one["rps"] for one in table["sides"])}
    told = {
        **found,
        "missing": {"Go (orders)": "no toolchain"},
        "workloads": [{**table, "sides": [*table["sides"], winner]}],
    }
    shown = peers.tables(told)
    assert shown[0].rows[0][0] == "Polars"  # who wins stands first
    assert shown[-1].rows == [["Go (orders)", "no toolchain"]]
    assert [(one.target, one.verdict) for one in peers.verdicts(told)] == [("S9", "missed")]


def test_another_answer_is_seen(stage: Stage, expected: dict) -> None:
    peer = next(peer for peer in catalog.PEERS if (peer.name, peer.group) == ("tuned Python", "orders"))
    workload, right = expected["orders"]
    case, (status, answered) = next(one for one in right if one[1][0] == 200 and one[1][1]["totals"]["count"])
    wrong = {**answered, "totals": {**answered["totals"], "net": "0.01"}}
    one = peers.Measured(peer, "1", side=peer.start(stage, 1))
    try:
        with pytest.raises(BenchError, match=f"tuned Python .* answer differently to a request with {case.what}"):
            peers.check(one, workload, [(case, (status, wrong))])
    finally:
        stage.owned.end(one.side.child)


def test_a_machine_without_go_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(golang, "PROGRAMS", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    golang.go.cache_clear()
    golang.version.cache_clear()
    try:
        with pytest.raises(Missing, match="no Go toolchain"):
            golang.version()
        assert "Go (orders)" in catalog.available()[1]
    finally:
        monkeypatch.undo()
        golang.go.cache_clear()
        golang.version.cache_clear()
