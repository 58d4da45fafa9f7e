"""A caller that wants no answer any more: by a token in a thread, by its task in an event loop. The worker stops."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

import molt_accel
from conftest import being_started, stopped, until

Client = molt_accel.SpawnedClient

WAIT = 0.3
SOON = 0.35
"""Seconds: a token is looked at ten times a second, and the machine may be busy."""
SLOW = "select count(*) as n from t x, t y where x.a * y.a % 7 = 3"
MANY = pa.table({"a": list(range(60_000))})
ROWS = pa.table({"a": list(range(1_000))})


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """A file to load."""
    path = tmp_path / "rows.csv"
    path.write_text("a\n1\n")
    return path


def is_running(client: Client) -> bool:
    return sum(session["in_flight"] for session in client.stats()["sessions"]) > 0


def test_a_token_stops_a_query_that_runs(own: Client) -> None:
    token, since = threading.Event(), []

    def cancel() -> None:
        until(lambda: is_running(own), "it runs")
        since.append(time.monotonic())
        token.set()

    setter = threading.Thread(target=cancel)
    setter.start()
    with pytest.raises(molt_accel.MoltCancelled):
        own.query(SLOW, {"t": MANY}, timeout=60.0, cancel=token)
    assert time.monotonic() - since[0] < SOON
    setter.join()
    until(lambda: not is_running(own), "the worker stops")
    assert own.stats()["totals"]["cancelled"] == 1
    assert own.call("echo", 1) == 1


def test_a_token_takes_put_and_load_back(own: Client, rows: Path) -> None:
    """A stopped worker has not begun: nothing is published when it goes on."""
    token = threading.Event()
    calls: list[Callable[[], object]] = [
        lambda: own.put("rows", ROWS, cancel=token),
        lambda: own.load("rows", rows, cancel=token),
    ]
    assert own.call("echo", 1) == 1
    for call in calls:
        token.clear()
        with stopped(own.worker.pid):
            threading.Timer(WAIT, token.set).start()
            start = time.monotonic()
            with pytest.raises(molt_accel.MoltCancelled):
                call()
            assert time.monotonic() - start < WAIT + SOON
        assert own.call("echo", 1) == 1 and own.tables() == []
    until(lambda: own.stats()["totals"]["cancelled"] >= len(calls), "the worker counts them")


def test_a_token_that_is_set_publishes_nothing_and_reports_no_progress(own: Client, rows: Path) -> None:
    told: list[object] = []
    token = threading.Event()
    token.set()
    assert own.call("echo", 1) == 1
    with stopped(own.worker.pid), pytest.raises(molt_accel.MoltCancelled):
        own.load("rows", rows, cancel=token, progress=told.append)
    assert own.tables() == [] and told == []


def test_a_token_ends_a_wait_for_a_worker() -> None:
    token = threading.Event()
    with molt_accel.spawn(arena="32MiB", threads=2, args=["--supervise"]) as supervised:
        assert supervised.call("echo", 1) == 1
        with being_started(supervised):
            threading.Timer(WAIT, token.set).start()
            start = time.monotonic()
            with pytest.raises(molt_accel.MoltCancelled):
                supervised.put("rows", ROWS, cancel=token)
            assert time.monotonic() - start < WAIT + SOON
        assert supervised.call("echo", 2, timeout=20.0) == 2


async def test_cancelling_the_task_takes_query_put_and_load_back(own: Client, rows: Path) -> None:
    calls = [
        lambda: own.aquery(SLOW, {"t": MANY}, timeout=60.0),
        lambda: own.aput("rows", ROWS),
        lambda: own.aload("rows", rows),
        lambda: own.aload("rows", rows, progress=lambda progress: None),
    ]
    assert await own.acall("echo", 1) == 1
    for call in calls:
        with stopped(own.worker.pid):
            task = asyncio.create_task(call())
            await asyncio.sleep(0.2)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert await own.acall("echo", 1) == 1 and await own.atables() == []
    until(lambda: own.stats()["totals"]["cancelled"] >= len(calls), "the worker counts them")
