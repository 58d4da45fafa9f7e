"""The tail: every request has its record, a stall gets the cause for which there is evidence, and every place is measured."""

import json
import os
import subprocess
import sys
import threading
import time
from array import array
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from bench.runner import causes, evidence, steady, tail
from bench.runner.evidence import Jitter, Look
from bench.runner.paths import ROOT

CALM = 1_000
"""Requests, a millisecond apart, each answered within half of one."""


def columns(**slow: float) -> dict[str, array]:
    """Calm requests and in their middle one that takes 100 ms; `slow` are its other values."""
    found = {name: array(kind) for name, kind in steady.COLUMNS.items()}
    for number in range(CALM):
        due = 50 + number / 1000
        values = {
            "due": due,
            "sent": due,
            "done": due + 0.0005,
            "in_flight": 1,
            "queue_us": 5.0,
            "exec_us": 300.0,
            "plans": 0,
        }
        if number == CALM // 2:
            values |= {"done": due + 0.1} | slow
        for name, value in values.items():
            found[name].append(value)
    return found


AT = 50 + CALM // 2 / 1000
QUIET = Jitter(1000, 0.001, [])


def looks(**added: float) -> list[Look]:
    """Twenty a second, with something in the one that covers the stall."""
    usual = {"minor_faults": 3, "major_faults": 0, "run_delay": 0.001, "steal": 0.0}
    every = [Look(49.5 + number * 0.05, **usual) for number in range(40)]
    return [Look(one.at, **{**usual, **added}) if AT < one.at <= AT + 0.05 else one for one in every]


@pytest.mark.parametrize(
    ("cause", "slow", "seen", "jitter", "pauses", "threads"),
    [
        (causes.GENERATOR, {"sent": AT + 0.08}, {}, [], [], 8),
        (causes.GC, {}, {}, [], [(AT + 0.01, 0.06)], 8),
        (causes.PLAN, {"plans": 1, "exec_us": 90_000.0}, {}, [], [], 8),
        (causes.FAULTS, {}, {"major_faults": 1}, [], [], 8),
        (causes.FAULTS, {}, {"minor_faults": 30_000}, [], [], 8),
        (causes.STEAL, {}, {"steal": 0.07}, [], [], 8),
        (causes.SCHEDULER, {}, {"run_delay": 0.07}, [], [], 8),
        (causes.SCHEDULER, {}, {}, [(AT + 0.09, 70.0)], [], 8),
        (causes.QUEUE, {"queue_us": 80_000.0}, {}, [], [], 8),
        (causes.RUN, {"exec_us": 80_000.0}, {}, [], [], 8),
        (causes.WEB, {"in_flight": 20}, {}, [], [], 8),
        (causes.CLIENT, {}, {}, [], [], None),
        (causes.UNKNOWN, {}, {}, [(AT - 0.2, 90.0)], [(AT - 0.2, 0.1)], 8),
    ],
)
def test_a_stall_gets_the_cause_that_was_seen_at_that_time(cause, slow, seen, jitter, pauses, threads) -> None:
    found = causes.Evidence(columns(**slow), looks(**seen), Jitter(1000, 0.001, jitter), pauses, threads)
    (stall,) = found.stalls(limit_ms=5.0)
    assert (stall.cause, stall.requests) == (cause, 1)
    assert stall.at == pytest.approx(0.5) and stall.ms == pytest.approx(100)
    assert causes.counted([stall]) == {cause: 1}


def test_long_requests_that_overlap_are_one_stall_and_the_worst_is_told_within_the_limit() -> None:
    found = columns()
    for number in range(CALM // 2, CALM // 2 + 100):
        found["done"][number] = AT + 0.1  # all wait for the same moment
    found["done"][10] = found["due"][10] + 0.02
    seen = causes.Evidence(found, looks(), QUIET, [], 8)
    assert [(one.requests, round(one.ms)) for one in seen.stalls(15.5)] == [(85, 100), (1, 20)]
    assert [round(one.ms) for one in seen.stalls(500.0)] == [100], "the worst 0.01% are told in any case"
    told = tail.figures(seen)
    assert (told["requests"], told["above_limit"], told["p999_ms"]) == (CALM, 0, None)
    assert told["limit_ms"] == pytest.approx(5 * told["p99_ms"])


def test_stalls_beyond_five_times_the_p99_miss_the_target() -> None:
    load = {"share": 0.5, "seconds": 600.0, "p99_ms": 2.0, "max_ms": 11.0}
    found = {"places": [{"name": "here", "loads": [load, {**load, "share": 0.8}]}]}
    (verdict,) = tail.verdicts(found)
    assert verdict.verdict == "missed" and verdict.measured == 5.5 and "ten minutes" not in verdict.what
    load |= {"max_ms": 10.0, "seconds": 60.0}
    (verdict,) = tail.verdicts(found)
    assert verdict.verdict == "reached" and "ten minutes are asked for" in verdict.what
    assert tail.Plan().minutes(10).loads[0] == (0.5, 600.0)


def test_the_kernels_counters_are_read() -> None:
    told = b"12 (a) b) S " + b" ".join(str(number).encode() for number in range(4, 30))
    assert evidence.parsed("/proc/12/stat", told) == (10.0, 12.0)
    assert evidence.parsed("/proc/12/task/12/schedstat", b"5 77 3\n") == (77.0,)
    assert evidence.parsed("/proc/stat", b"cpu  1 2 3 4 5 6 7 8 9 10\ncpu0 1\n") == (8.0,)


def test_page_faults_and_run_delay_of_a_process_are_seen() -> None:
    watch = evidence.Watch([os.getpid()])
    watch.start()
    rivals = [
        subprocess.Popen([sys.executable, "-c", "import time\nend = time.time() + 1\nwhile time.time() < end: pass"])
        for _ in range(2 * len(os.sched_getaffinity(0)))
    ]
    kept, end = [], time.monotonic() + 1
    while time.monotonic() < end:
        kept.append(bytearray(b"x") * (1 << 20))
    seen = watch.stop()
    for rival in rivals:
        rival.wait()
    assert sum(one.minor_faults for one in seen) > 1_000
    assert sum(one.run_delay for one in seen) > 0.05, "more processes than cores wanted to run"
    assert len(seen) > 5 and 0 < watch.cpu_s < 0.5


def test_the_probe_writes_down_when_it_was_woken_late(tmp_path: Path) -> None:
    evidence.sleep_and_tell(0.3, tmp_path / "jitter.json")
    seen = evidence.jitter(tmp_path / "jitter.json")
    assert 10 < seen.wakes <= 61 and 0 < seen.cpu_share < 0.5
    late = Jitter(10, 0.0, [(1.0, 4.0), (2.0, 30.0)])
    assert (late.during(1.5, 1.98), late.during(0.0, 0.99), late.during(2.1, 9.0)) == (
        30.0,
        0.0 + late.during(0.0, 0.99),
        0.0,
    )
    assert late.told()["longest_ms"] == 30.0


class Slow(BaseHTTPRequestHandler):
    """Says what it cost; the connection of every tenth request ends with its answer."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1
    count = 0

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        Slow.count += 1
        self.send_response(503 if self.path == "/broken/" else 200)
        self.send_header("Server-Timing", 'molt;desc="totals";dur=1.2, molt-queue;dur=0.25, molt-run;dur=0.75')
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")
        self.close_connection = Slow.count % 10 == 0

    def log_message(self, *args) -> None:
        pass


@pytest.fixture
def served():
    """An HTTP server that takes anything."""
    with ThreadingHTTPServer((tail.servers.HOST, 0), Slow) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server.server_port
        server.shutdown()


def run(port: int, path: str, tmp_path: Path) -> tuple[dict, dict[str, array]]:
    """A steady load of a second."""
    body = tmp_path / "body"
    body.write_bytes(b"{}")
    asked = {"host": tail.servers.HOST, "port": port, "path": path, "token": "token"}
    settings = steady.Settings(str(body), str(tmp_path / "records"), 200.0, 1.0, **asked).write(tmp_path / "settings")
    ran = subprocess.run(
        [sys.executable, "-m", "bench.runner.steady", settings], cwd=ROOT, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout), steady.read(tmp_path / "records")


def test_requests_are_sent_when_they_are_due_and_none_is_lost(served: int, tmp_path: Path) -> None:
    told, found = run(served, "/", tmp_path)
    assert told["errors"] == {} and told["unanswered"] == 0
    assert len(found["due"]) == 200, "also those whose kept connection the server had closed"
    due = sorted(found["due"])
    assert all(later - earlier == pytest.approx(0.005, abs=1e-6) for earlier, later in zip(due, due[1:], strict=False))
    assert all(due <= sent <= done for due, sent, done in zip(found["due"], found["sent"], found["done"], strict=True))
    assert set(found["queue_us"]) == {250.0} and set(found["exec_us"]) == {750.0}


def test_an_answer_that_is_no_success_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="503 Service Unavailable"):
        steady.cost(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")


def test_the_timer_expires_at_its_moments() -> None:
    timer = steady.Timer(time.monotonic() + 0.01, 0.01)
    assert timer.expired() == 0
    time.sleep(0.055)
    assert timer.expired() >= 4, "moments that nobody has asked for are counted"
    os.close(timer.number)


def test_every_place_is_measured_and_nothing_is_left(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bench", "tail", "--check", "--results", str(tmp_path)]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=400)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    (folder,) = (path for path in tmp_path.iterdir() if path.is_dir())
    found = json.loads((folder / "tail.json").read_text())
    assert [place["name"] for place in found["places"]] == list(tail.PLACES.values())
    for place in found["places"]:
        assert [(load["share"], load["seconds"]) for load in place["loads"]] == list(tail.CHECK.loads)
        for load in place["loads"]:
            assert load["requests"] == pytest.approx(load["rate"] * load["seconds"], rel=0.02)
            assert load["rate"] == pytest.approx(load["share"] * place["capacity"], rel=0.01)
            assert 0 < load["p50_ms"] <= load["max_ms"] and load["errors"] == {}
            assert sum(load["causes"].values()) >= len(load["stalls"]) > 0
            assert load["stalls"][0]["ms"] == load["max_ms"]
            assert load["jitter"]["wakes"] > 0
    assert found["left_behind"] == []
    assert "causes of the longest" in (folder / "tail.md").read_text()
