"""The open loop: times count from when a request was due, nothing is lost from the counts, and every place is
measured."""

import asyncio
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import molt_accel
import pytest

from bench.runner import arrivals, child, data, k6, overload, usage
from bench.runner.owned import Owned
from bench.runner.paths import ROOT
from bench.runner.scenarios import at_lines
from bench.runner.servers import Server

OUTCOMES = overload.OUTCOMES
NO_TIMES = {**dict.fromkeys(arrivals.FIGURES), "max_ms": None, "behind_p99_ms": 0.0}


class Stub:
    """A client that does what it is told, in turn."""

    def __init__(self, *does) -> None:
        self.does = list(does)
        self.timeouts: list[float] = []

    async def aexchange(self, entry: str, body: bytes, codec: int, accept: int, timeout: float) -> None:
        self.timeouts.append(timeout)
        does = self.does.pop(0) if len(self.does) > 1 else self.does[0]
        if isinstance(does, Exception):
            raise does
        time.sleep(does)  # the whole loop stands still, as it does when it cannot keep up


def opened(stub: Stub, rate: float, seconds: float, deadline: float) -> arrivals.Seen:
    """What an open loop at the stub has seen."""
    seen = arrivals.Seen()
    one = partial(arrivals.ask, stub, b"", deadline=deadline, seen=seen)
    seen.behind = asyncio.run(arrivals.open_loop(one, rate, seconds))
    return seen


def test_a_generator_that_falls_behind_counts_its_own_lag() -> None:
    seen = opened(Stub(0.02), 100.0, 0.5, 60.0)
    assert seen.told()["sent"] == seen.counts["in_time"] == 50
    # Fifty requests of 20 ms each were due within half a second: the last has waited for all the others.
    assert max(seen.accepted) > 0.4 and seen.told()["max_ms"] > 400
    assert seen.told()["behind_p99_ms"] > 200, "and says how much it was"


def test_a_percentile_is_told_where_requests_carry_it() -> None:
    seen = arrivals.Seen()
    for number in range(1000):
        seen.add("in_time", number / 1000, 0.0)
    told = seen.told()
    assert (told["p50_ms"], told["p99_ms"], told["p999_ms"], told["max_ms"]) == (500, 990, None, 999)


def test_a_request_has_until_its_deadline_from_when_it_was_due() -> None:
    stub = Stub(0.05)
    seen = opened(stub, 200.0, 0.25, 1.0)
    assert seen.counts["timeout"] > 0, "those that waited too long are not even sent"
    assert sum(seen.counts.values()) == 50 and len(stub.timeouts) == 50 - seen.counts["timeout"]
    assert all(0 < timeout <= 1.0 - arrivals.MARGIN for timeout in stub.timeouts)


def test_every_outcome_is_counted_and_busy_is_not_accepted() -> None:
    errors = [molt_accel.MoltBusy("full"), molt_accel.MoltTimeout("late"), molt_accel.MoltUnavailable("gone"), 0.0]
    seen = opened(Stub(*errors), 1000.0, 0.004, 60.0)
    assert seen.counts == {"in_time": 1, "late": 0, "busy": 1, "timeout": 1, "gave_up": 0, "other": 1}
    assert len(seen.accepted) == 3
    closed = arrivals.Seen()
    one = partial(arrivals.ask, Stub(0.001), b"", deadline=60.0, seen=closed)
    asyncio.run(arrivals.closed_loop(one, arrivals.IN_FLIGHT, 0.1))
    assert closed.counts["in_time"] == closed.told()["sent"] >= arrivals.IN_FLIGHT


class Slow(BaseHTTPRequestHandler):
    """Answers one request at a time, half as fast as they come, and what the path says."""

    protocol_version = "HTTP/1.1"
    timeout = 0.001
    """Seconds for a further request of the same connection: the next one is another's."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        time.sleep(0.05)
        self.send_response(int(self.path.strip("/")))
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *args) -> None:
        pass


class Queue(HTTPServer):
    request_queue_size = 128


@pytest.fixture
def slow_server() -> Iterator[str]:
    server = Queue(("127.0.0.1", 0), Slow)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def at_the_web(url: str, rate: float, seconds: float, deadline: float) -> dict:
    """What the generator prints."""
    command = [sys.executable, "-m", "bench.runner.web_arrivals", url, "token", data.body(at_lines(20)[1])]
    command += [str(number) for number in (rate, seconds, deadline)]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


def test_at_a_web_server_too_it_counts_from_when_a_request_was_due(slow_server: str) -> None:
    slow = at_the_web(f"{slow_server}/200/", 40.0, 1.0, 20.0)
    assert slow["sent"] == slow["in_time"] == 40
    # Each takes 50 ms, one after the other, and comes 25 ms after the one before: the n-th waits for n times 25 ms.
    assert slow["max_ms"] > 25 * 40 - 100


def test_at_a_web_server_every_status_is_an_outcome(slow_server: str) -> None:
    for status, outcome in ((503, "busy"), (429, "busy"), (504, "timeout"), (500, "other")):
        found = at_the_web(f"{slow_server}/{status}/", 20.0, 0.2, 20.0)
        assert found[outcome] == found["sent"] == 4, found
    assert at_the_web(f"{slow_server}/200/", 40.0, 1.0, 0.2)["gave_up"] > 10, "after twice the deadline it hangs up"
    assert at_the_web(f"{slow_server}/200/", 0.0, 0.5, 20.0)["in_time"] >= 5, "a closed loop"


# Works for a second on what clients left that have hung up.
BEHIND = "import time\nwhile time.process_time() < 1.0: pass\ntime.sleep(600)"


def test_a_rate_begins_when_the_server_is_through_with_the_one_before(tmp_path: Path) -> None:
    with Owned() as owned:
        behind = child.start(owned, "a server", [sys.executable, "-c", BEHIND], tmp_path / "log")
        server = Server("gunicorn", "http://127.0.0.1:1", behind)
        place = overload.Place(owned, tmp_path, overload.WSGI, None, server, tmp_path, overload.CHECK)
        place._seen = lambda rate, seconds: {**dict.fromkeys(OUTCOMES, 0), **NO_TIMES, "sent": usage.of(behind.pid).cpu_s}
        assert place.step(1.0, 10.0).sent >= 0.95


def step(place: str, share: float, in_time: int, p999: float) -> dict:
    """One rate, as a run would have told it."""
    counts = {**dict.fromkeys(OUTCOMES, 0), "in_time": in_time, "busy": 5}
    times = {"p50_ms": 1.0, "p99_ms": p999 / 2, "p999_ms": p999, "max_ms": 2 * p999}
    rest = {"rate": 100.0 * share, "seconds": 10.0, "sent": in_time + 5, "behind_p99_ms": 1.0, "answered": in_time / 10}
    return {"place": place, "share": share, **rest, **counts, **times}


def test_the_target_is_judged_at_twice_the_capacity_against_the_peak() -> None:
    steps = [
        step("client", 1.0, 1000, 50),
        step("client", 2.0, 950, 300),
        step("ASGI", 2.0, 500, 800),
        step("WSGI", 2.0, 1, 9e9),
    ]
    steps.insert(2, step("ASGI", 1.0, 1000, 50))
    found = {"plan": {"deadline": 0.5}, "steps": steps}
    verdicts = {verdict.what: verdict.verdict for verdict in overload.verdicts(found)}
    assert list(verdicts.values()) == ["reached", "reached", "missed", "missed"]
    assert all("WSGI" not in what for what in verdicts), "it is reported, not judged"
    steps[1]["p999_ms"] = None
    worst = overload.verdicts(found)[1]
    assert "too few" in worst.what and worst.measured == 600
    rows = overload.table(found).rows
    assert [row[4] for row in rows] == ["100%", "95%", "100%", "50%", "100%"]


def test_every_place_is_measured_and_nothing_is_left(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bench", "overload", "--check", "--results", str(tmp_path)]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=400)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    for place in ("client", "granian-asgi", "gunicorn"):
        assert f"{place}: a closed loop" in ran.stdout and f"{place}: 2 times its" in ran.stdout, "it says what it does"
    (folder,) = (path for path in tmp_path.iterdir() if path.is_dir())
    found = json.loads((folder / "overload.json").read_text())
    assert [(one["place"], one["share"]) for one in found["steps"]] == [
        (place, share) for place in ("client", "ASGI", "WSGI") for share in (0.5, 2.0)
    ]
    assert set(found["capacity"]) == {"client", "ASGI", "WSGI"} and min(found["capacity"].values()) > 0
    for one in found["steps"]:
        assert one["sent"] == sum(one[outcome] for outcome in OUTCOMES) > 0
    assert found["left_behind"] == []
    assert "S11" in (folder / "overload.md").read_text()


@pytest.mark.parametrize("path", sorted((ROOT / "bench" / "k6" / "open").glob("*.js")), ids=lambda path: path.stem)
def test_without_a_rate_the_loop_is_closed(path: Path) -> None:
    shown = subprocess.run([k6.program(), "inspect", str(path)], capture_output=True, text=True, check=True)
    assert json.loads(shown.stdout)["scenarios"]["load"]["executor"] == "constant-vus"
