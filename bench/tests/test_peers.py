"""The peers: each starts on a free port and answers as plain Python does; the run times, shows and judges them."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.peers import catalog, golang
from bench.peers.peer import Missing, Peer, Side, Stage
from bench.runner import child, paths, peers, sides, worker
from bench.runner.child import Child
from bench.runner.errors import BenchError
from bench.runner.k6 import Generated
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
    return {workload.group: (workload, sides.right_answers(stage, workload)) for workload in sides.workloads()}


@pytest.mark.parametrize("peer", catalog.PEERS, ids=lambda peer: f"{peer.group}-{peer.name}")
def test_it_answers_as_plain_python_does(peer: Peer, stage: Stage, expected: dict) -> None:
    if peer not in AVAILABLE:
        pytest.skip(MISSING[f"{peer.name} ({peer.group})"])
    workload, right = expected[peer.group]
    side = sides.start(stage, peer, 1)
    try:
        assert sides.check(peer.name, side, workload, right) == len(right) > 3
        statuses = {status for _, (status, _) in right}
        assert statuses == {200, 400}
    finally:
        sides.end(stage, side)


@pytest.mark.parametrize("decoder", golang.BUILD)
def test_go_answers_as_plain_python_does_with_each_decoder(decoder: str, stage: Stage, expected: dict) -> None:
    if decoder not in golang.decoders():
        pytest.skip(f"{decoder} needs Debian's golang-github-mailru-easyjson-dev")
    workload, right = expected["orders"]
    side = golang.start(stage, 1, decoder)
    try:
        assert decoder.replace("/", "-") in side.command
        assert sides.check(f"Go with {decoder}", side, workload, right) == len(right)
    finally:
        sides.end(stage, side)


@pytest.mark.parametrize("name", ["tuned Python", "tuned Python, granian"])
def test_every_web_process_is_warmed_up(name: str, stage: Stage) -> None:
    peer = next(peer for peer in catalog.PEERS if peer.name == name)
    side = sides.start(stage, peer, 3)
    try:
        warmed = sides.warm(side, sides.workloads()[0])
        assert side.web == len(warmed) == 3 and side.child.pid not in warmed
        # The clients have gone, so nobody holds a connection, and a process more would never be found.
        child.until(lambda: not sides.answering(side), "the connections end", 10)
    finally:
        sides.end(stage, side)


def never(stage: Stage, count: int) -> Side:
    """A peer that starts something beside itself, and then does not come up."""
    child.start(stage.owned, "a helper", ["sleep", "600"], stage.logs / "helper.log")
    raise BenchError("it does not listen")


def test_a_peer_that_does_not_start_is_missing_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[Child] = []
    start = child.start
    monkeypatch.setattr(child, "start", lambda *args, **more: begun.append(start(*args, **more)) or begun[-1])
    broken = Peer("broken", "orders", "", lambda: "1", never)
    tuned = next(peer for peer in catalog.PEERS if peer.name == "tuned Python")
    monkeypatch.setattr(catalog, "PEERS", (broken, tuned))
    plan = peers.Plan(users=2, rounds=1, seconds=1.0, search=False, arrivals=0, names=("broken", "tuned Python"))
    with Owned() as owned:
        found = peers.measure(owned, tmp_path, plan)
        assert [one.ended() for one in begun if one.what == "a helper"] == [True]
    assert found["missing"] == {"broken (orders)": "does not start: it does not listen"}
    assert [one["name"] for workload in found["workloads"] for one in workload["sides"]] == ["tuned Python"]
    assert peers.tables(found)[-1].rows == [["broken (orders)", "does not start: it does not listen"]]


def test_a_peer_that_dies_under_load_is_told_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = sides.load

    def deadly(stage: Stage, side: Side, workload: sides.Workload, seconds: float, *more: Any) -> Any:
        if side.child.what == "numpy_view" and seconds == 1.0:  # a round, not the warming up
            side.child.stop(0.1)
        return load(stage, side, workload, seconds, *more)

    monkeypatch.setattr(sides, "load", deadly)
    plan = peers.Plan(
        users=2, rounds=2, seconds=1.0, warm_up=1.5, search=False, arrivals=0, names=("plain Python", "numpy")
    )
    with Owned() as owned:
        found = peers.measure(owned, tmp_path, plan)
    (name, reason), *others = found["missing"].items()
    assert (name, others) == ("numpy (table)", []) and reason.startswith("died under load: "), found["missing"]
    told = [(workload["group"], one["name"]) for workload in found["workloads"] for one in workload["sides"]]
    assert told == [("orders", "plain Python"), ("table", "plain Python")] and found["left_behind"] == []


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """A load of molt and of numpy through the runner."""
    plan = peers.Plan(users=2, rounds=1, seconds=1.0, search=False, arrivals=30, names=("molt", "numpy"))
    with Owned() as owned:
        return peers.measure(owned, tmp_path_factory.mktemp("logs"), plan)


def test_the_run_times_all_sides(found: dict) -> None:
    assert found["left_behind"] == []
    sides = {(workload["group"], one["name"]): one for workload in found["workloads"] for one in workload["sides"]}
    assert set(sides) == {("orders", "molt"), ("table", "molt"), ("table", "numpy")}
    for one in sides.values():
        assert one["errors"] == one["arrival"]["errors"] == 0
        assert 0 < one["rps_from"] <= one["rps"] <= one["rps_to"]
        assert 0 < one["p50_ms"]
        assert one["p999_ms"] is None, "a second has no requests enough for it"
        assert one["arrival"]["requests"] >= 0.9 * 30
        assert one["cpu_s"] > 0 and one["generator_cpu_s"] > 0 and one["requests_per_cpu_s"] > 0
        assert one["version"] and one["how"] and one["command"] and one["compared"]
    for workload in found["workloads"]:
        slowest = min(one["rps"] for one in workload["sides"])
        assert workload["arriving"] == pytest.approx(0.6 * slowest, rel=0.01)


def test_the_best_number_of_processes_and_of_worker_threads_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    molt = next(peer for peer in catalog.PEERS if (peer.name, peer.group) == ("molt", "orders"))
    fewer = replace(molt, counts=(1, 2), threads=(1, catalog.CORES + 1))
    monkeypatch.setattr(catalog, "PEERS", (fewer,))
    plan = peers.Plan(users=2, rounds=1, seconds=1.0, search_seconds=1.0, arrivals=0, names=("molt",))
    with Owned() as owned:
        found = peers.measure(owned, tmp_path, plan)
    ((one,),) = (workload["sides"] for workload in found["workloads"])
    assert set(one["tried"]) == {"1", "2"} and one["tried"][str(one["count"])] == max(one["tried"].values())
    assert set(one["threads_tried"]) == {"1", str(catalog.CORES + 1)}
    assert one["threads_tried"][str(one["threads"])] == max(one["threads_tried"].values())
    assert one["errors"] == one["arrival"]["errors"] == 0 and one["cpu_s"] > 0
    assert found["left_behind"] == [], "every worker that was tried has gone"


def test_a_program_that_the_end_needs_is_missed_at_the_beginning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paths, "BINARIES", tmp_path)
    with Owned() as owned, pytest.raises(BenchError, match="molt-ablation is not built"):
        peers.measure(owned, tmp_path, peers.CHECK)


def side(name: str, server: str, rps: float) -> dict:
    """One side as a run would have told it."""
    return {"name": name, "server": server, "rps": rps}


def test_it_is_shown_with_the_winner_first(found: dict) -> None:
    table = next(workload for workload in found["workloads"] if workload["group"] == "table")
    winner = {**table["sides"][0], "name": "Polars", "rps": 10 * max(one["rps"] for one in table["sides"])}
    told = {
        **found,
        "missing": {"Go (orders)": "no toolchain"},
        "workloads": [{**table, "sides": [*table["sides"], winner]}],
    }
    shown = peers.tables(told)
    assert shown[0].rows[0][0] == "Polars"
    assert shown[-1].rows == [["Go (orders)", "no toolchain"]]
    ((target, verdict),) = {(one.target, one.verdict) for one in peers.verdicts(told)}
    assert (target, verdict) == ("S9", "missed")


def test_each_server_is_judged_against_what_runs_under_it() -> None:
    orders = [
        side("molt", "gunicorn", 1000), side("plain Python", "gunicorn", 100), side("tuned Python", "gunicorn", 250),
        side("molt, granian", "granian", 2000), side("plain Python, granian", "granian", 500), side("Go", "", 1000),
    ]  # fmt: skip
    table = [
        side("molt", "gunicorn", 900), side("Polars", "gunicorn", 300), side("DuckDB", "gunicorn", 450),
        side("molt, granian", "granian", 1000), side("Polars, granian", "granian", 1000),
    ]  # fmt: skip
    found = {"workloads": [{"group": "orders", "sides": orders}, {"group": "table", "sides": table}]}
    told = {one.what: one.measured for one in peers.verdicts(found)}
    assert told == {
        "gunicorn: orders, requests/s: molt against plain Python": 10,
        "gunicorn: orders, requests/s: molt against tuned Python": 4,
        "gunicorn: orders, requests/s: molt against Go": 1,
        "granian: orders, requests/s: molt against plain Python": 4,
        "granian: orders, requests/s: molt against Go": 2,
        "gunicorn: table, requests/s: molt against the faster of Polars and DuckDB inside the view": 2,
        "granian: table, requests/s: molt against Polars (DuckDB is missing) inside the view": 1,
    }


def test_a_percentile_over_rounds_needs_requests_in_each() -> None:
    def round_of(requests: int) -> Generated:
        return Generated(requests, 0, 1.0, {"p(99)": 5.0, "p(99.9)": 9.0}, 0, 0.1)

    assert peers.over_rounds([round_of(490)] * 5, 99) == 5.0
    assert peers.over_rounds([round_of(490)] * 5, 99.9) is None, "it would be the largest of each round"
    assert peers.over_rounds([round_of(490)] * 2, 99) is None, "nine lie beyond it"
    assert peers.over_rounds([round_of(2_500)] * 5, 99.9) == 9.0


def test_another_answer_is_seen(stage: Stage, expected: dict) -> None:
    peer = next(peer for peer in catalog.PEERS if (peer.name, peer.group) == ("tuned Python", "orders"))
    workload, right = expected["orders"]
    case, (status, answered) = next(one for one in right if one[1][0] == 200 and one[1][1]["totals"]["count"])
    wrong = {**answered, "totals": {**answered["totals"], "net": "0.01"}}
    side = sides.start(stage, peer, 1)
    try:
        with pytest.raises(BenchError, match=f"tuned Python .* answer differently to a request with {case.what}"):
            sides.check(peer.name, side, workload, [(case, (status, wrong))])
    finally:
        sides.end(stage, side)


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
