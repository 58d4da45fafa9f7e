"""What happens to work that is running: its deadline, its cancellation, the death of its worker."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import molt_accel
from conftest import attached, until

Client = molt_accel.SpawnedClient

SLOW = "select count(*) as n from t x, t y where x.a * y.a % 7 = 3"
ROWS = pa.table({"a": list(range(100_000))})  # squared: most of a minute
SECONDS = 120.0


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """Makes the slow statement an entry."""
    entry = {"name": "slow", "kind": "sql", "sql": SLOW, "input": "t", "timeout_ms": 120_000}
    path = tmp_path / "exports.json"
    path.write_text(json.dumps({"abi_version": 1, "exports": [entry]}))
    return path


@pytest.fixture
def own(manifest: Path) -> Iterator[Client]:
    """A worker of the test's own."""
    with molt_accel.spawn(exports=manifest, arena="32MiB", threads=2) as spawned:
        yield spawned


def in_flight(client: Client) -> int:
    return sum(session["in_flight"] for session in client.stats()["sessions"])


def in_thread(client: Client, **options: Any) -> tuple[threading.Thread, list[Any]]:
    """The slow entry, called in a thread; it is running when this returns."""
    ended: list[Any] = []

    def call() -> None:
        try:
            ended.append(client.call("slow", ROWS, "arrow", timeout=SECONDS, **options))
        except molt_accel.MoltError as error:
            ended.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    until(lambda: in_flight(client) == 1, "the entry runs")
    return thread, ended


@pytest.mark.parametrize("how", ["query", "call"])
def test_a_deadline_stops_the_work_and_frees_its_thread(own: Client, how: str) -> None:
    start = time.monotonic()
    with pytest.raises(molt_accel.MoltTimeout):
        if how == "query":
            own.query(SLOW, tables={"t": ROWS}, timeout=0.3)
        else:
            own.call("slow", ROWS, "arrow", timeout=0.3)
    assert time.monotonic() - start < 10.0
    until(lambda: in_flight(own) == 0, "the worker has let go")
    assert own.call("echo", 1) == 1


async def test_cancelling_the_task_stops_the_work(own: Client) -> None:
    call = asyncio.create_task(own.acall("slow", ROWS, "arrow", timeout=SECONDS))
    while in_flight(own) != 1:
        await asyncio.sleep(0.005)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    until(lambda: in_flight(own) == 0 and own.stats()["totals"]["cancelled"] == 1, "the worker has let go")


def test_ctrl_c_stops_the_work(own: Client) -> None:
    done = threading.Event()

    def interrupt() -> None:
        until(lambda: in_flight(own) == 1, "the entry runs")
        while not done.wait(0.1):  # again, should the first one come between two system calls
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            own.call("slow", ROWS, "arrow", timeout=SECONDS)
    finally:
        done.set()
        thread.join()
    until(lambda: in_flight(own) == 0 and own.stats()["totals"]["cancelled"] == 1, "the worker has let go")


def test_work_that_was_running_is_lost_with_its_worker(own: Client) -> None:
    thread, ended = in_thread(own, idempotent=False)
    own.worker.kill()
    thread.join(10)
    assert type(ended[0]) is molt_accel.MoltWorkerLost and ended[0].entry == "slow" and ended[0].http_status == 502


def test_idempotent_work_is_done_again_by_the_next_worker(manifest: Path) -> None:
    rows = pa.table({"a": list(range(15_000))})
    with molt_accel.spawn(exports=manifest, arena="32MiB", threads=2, args=["--supervise"]) as own:
        wanted = own.call("slow", rows, "arrow", timeout=SECONDS).to_pyarrow()
        until(lambda: in_flight(own) == 0, "that one is over")
        ended: list[Any] = []
        thread = threading.Thread(target=lambda: ended.append(own.call("slow", rows, "arrow", timeout=SECONDS)))
        thread.start()
        until(lambda: in_flight(own) == 1, "the entry runs")
        os.kill(own.stats()["worker"]["pid"], signal.SIGKILL)
        thread.join(60)
        assert ended[0].to_pyarrow().equals(wanted) and ended[0].metrics.resent


async def test_work_of_an_event_loop_is_lost_with_its_worker(own: Client) -> None:
    call = asyncio.create_task(own.acall("slow", ROWS, "arrow", timeout=SECONDS))
    while in_flight(own) != 1:
        await asyncio.sleep(0.005)
    os.kill(own.worker.pid, signal.SIGKILL)
    with pytest.raises(molt_accel.MoltWorkerLost) as lost:
        await call
    assert lost.value.details == {"idempotent": True}  # SQL only reads: the decorator's fallback may run


def test_closing_a_client_lets_a_call_in_another_thread_finish(own: Client) -> None:
    other = attached(own)
    small = pa.table({"a": list(range(8_000))})
    ended: list[Any] = []
    thread = threading.Thread(target=lambda: ended.append(other.call("slow", small, "arrow", timeout=SECONDS)))
    thread.start()
    until(lambda: in_flight(own) == 1 or ended, "the entry runs")
    other.close()
    thread.join(60)
    assert ended[0].to_pyarrow().num_rows == 1


def test_a_stopping_worker_finishes_what_runs(own: Client) -> None:
    small = pa.table({"a": list(range(15_000))})
    ended: list[Any] = []
    thread = threading.Thread(target=lambda: ended.append(own.call("slow", small, "arrow", timeout=SECONDS)))
    thread.start()
    until(lambda: in_flight(own) == 1 or ended, "the entry runs")
    own.worker.terminate()
    thread.join(60)
    assert ended[0].to_pyarrow().num_rows == 1
    assert own.worker.wait(10) == 0
