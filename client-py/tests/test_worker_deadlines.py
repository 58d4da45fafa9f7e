"""One time-out for a call, whatever it waits for: a worker, its answer to a hello, a channel, shared memory, room.

The workers here are stopped, dead, or about to be started; every call ends in its time, and no event loop stands still.
"""

from __future__ import annotations

import asyncio
import gc
import io
import json
import os
import signal
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from django.http import HttpRequest
from django.test import RequestFactory, override_settings

import molt_accel
from conftest import being_started, settings_of, stop, stopped, until
from molt_accel import codecs
from molt_accel.django import aoffload, offload

Client = molt_accel.SpawnedClient

TIMEOUT = 0.6
GRACE = 0.35
"""Seconds beyond the time-out that a busy machine may take to tell: less than a second time-out, or that for a hello."""
STANDSTILL = 0.05
"""Seconds that an event loop may stand still, not counting those in which it would go on if it were given a core."""
ROWS = pa.table({"a": list(range(1_000))})


@pytest.fixture
def supervised(tmp_path: Path) -> Iterator[Client]:
    """A client of a supervised worker whose entry `brief` has a limit of its own, shorter than its callers'."""
    manifest = tmp_path / "exports.json"
    brief = {"name": "brief", "kind": "sql", "sql": "select 1 as n", "timeout_ms": int(TIMEOUT * 1000)}
    manifest.write_text(json.dumps({"abi_version": 1, "exports": [brief]}))
    with molt_accel.spawn(exports=manifest, arena="32MiB", threads=2, args=["--supervise"]) as spawned:
        yield spawned


def took(call: Callable[[], object]) -> float:
    """How long a call takes that must end as one whose time is over, or whose worker is away."""
    start = time.monotonic()
    with pytest.raises((molt_accel.MoltTimeout, molt_accel.MoltUnavailable, molt_accel.MoltWorkerLost)):
        call()
    return time.monotonic() - start


async def atook(call: Any) -> float:
    start = time.monotonic()
    with pytest.raises((molt_accel.MoltTimeout, molt_accel.MoltUnavailable, molt_accel.MoltWorkerLost)):
        await call
    return time.monotonic() - start


def together(calls: list[Callable[[], object]]) -> list[float]:
    """The same for each of them, in a thread of its own, all at once."""
    times: list[float] = []
    threads = [threading.Thread(target=lambda call=call: times.append(took(call))) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(times) == len(calls)
    return times


def without_core() -> float:
    """Seconds that this thread has waited for a core: the kernel counts them."""
    return int(Path("/proc/thread-self/schedstat").read_text().split()[1]) / 1e9


@asynccontextmanager
async def watched() -> AsyncIterator[None]:
    """The running loop comes by again and again meanwhile."""
    longest = 0.0

    async def watch() -> None:
        nonlocal longest
        last, last_denied = time.monotonic(), without_core()
        while True:
            await asyncio.sleep(0.002)
            now, denied = time.monotonic(), without_core()
            longest = max(longest, now - last - (denied - last_denied))
            last, last_denied = now, denied

    gc.collect()
    gc.freeze()  # what a thousand tests before left behind takes a collection longer than that to look through
    try:
        watching = asyncio.create_task(watch())
        await asyncio.sleep(0.01)
        yield
        await asyncio.sleep(0.01)
        watching.cancel()
    finally:
        gc.unfreeze()
    assert longest < STANDSTILL, f"the loop stood still for {longest:.3f} s"


@contextmanager
def stranger(own: Client, **given: Any) -> Iterator[molt_accel.Client]:
    """A client that has not attached yet."""
    client = molt_accel.Client(own.shm, socket=own.socket, **given)
    try:
        yield client
    finally:
        client.close()


Call = Callable[[molt_accel.Client], Any]
CALLS: dict[str, Call] = {
    "call": lambda client: client.call("echo", 1, timeout=TIMEOUT),
    "call with a table": lambda client: client.call("echo", ROWS, "arrow", timeout=TIMEOUT),
    "query": lambda client: client.query("select 1", timeout=TIMEOUT),
    "query of a table": lambda client: client.query("select * from t", tables={"t": ROWS}, timeout=TIMEOUT),
    "put": lambda client: client.put("rows", ROWS, timeout=TIMEOUT),
    "load": lambda client: client.load("rows", "/nowhere.parquet", timeout=TIMEOUT),
    "load with progress": lambda client: client.load("rows", "/nowhere.parquet", timeout=TIMEOUT, progress=print),
    "table": lambda client: client.table("rows", timeout=TIMEOUT),
    "tables": lambda client: client.tables(timeout=TIMEOUT),
    "drop": lambda client: client.drop("rows", timeout=TIMEOUT),
    "ping": lambda client: client.ping(timeout=TIMEOUT),
    "exchange": lambda client: client.exchange("echo", b"1", codecs.RAW, codecs.RAW, TIMEOUT),
}
TWINS: dict[str, Call] = {
    "acall": lambda client: client.acall("echo", 1, timeout=TIMEOUT),
    "acall with a table": lambda client: client.acall("echo", ROWS, "arrow", timeout=TIMEOUT),
    "aquery": lambda client: client.aquery("select 1", timeout=TIMEOUT),
    "aquery of a table": lambda client: client.aquery("select * from t", tables={"t": ROWS}, timeout=TIMEOUT),
    "aput": lambda client: client.aput("rows", ROWS, timeout=TIMEOUT),
    "aload": lambda client: client.aload("rows", "/nowhere.parquet", timeout=TIMEOUT),
    "aload with progress": lambda client: client.aload("rows", "/nowhere.parquet", timeout=TIMEOUT, progress=print),
    "atable": lambda client: client.atable("rows", timeout=TIMEOUT),
    "atables": lambda client: client.atables(timeout=TIMEOUT),
    "adrop": lambda client: client.adrop("rows", timeout=TIMEOUT),
    "aping": lambda client: client.aping(timeout=TIMEOUT),
    "aexchange": lambda client: client.aexchange("echo", b"1", codecs.RAW, codecs.RAW, TIMEOUT),
}


# -- a worker that stands still ---------------------------------------------------------------------------------------


def test_threads_that_attach_to_a_stopped_worker_do_not_queue(own: Client) -> None:
    with stopped(own.worker.pid), stranger(own, timeout=TIMEOUT) as new:
        assert max(together([lambda: new.call("echo", 1)] * 12)) < TIMEOUT + GRACE
        assert new.breaker.state == "open", "the next ones need not wait"
    assert own.call("echo", 2) == 2


async def test_tasks_that_attach_to_a_stopped_worker_do_not_queue(own: Client) -> None:
    with stopped(own.worker.pid), stranger(own, timeout=TIMEOUT) as new:
        async with watched():
            times = await asyncio.gather(*(atook(new.acall("echo", 1)) for _ in range(12)))
        assert max(times) < TIMEOUT + GRACE
    assert await own.acall("echo", 2) == 2


def test_who_attaches_to_a_stopped_worker_is_told_that_the_time_is_over(own: Client) -> None:
    with stopped(own.worker.pid), stranger(own) as new:
        with pytest.raises(molt_accel.MoltTimeout, match="hello"):
            new.call("echo", 1, timeout=TIMEOUT)
        assert took(lambda: new.call("echo", 1, timeout=60.0)) < 5.0, "after a second it is known to hang"
    assert own.call("echo", 2) == 2


@pytest.mark.parametrize("name", CALLS)
def test_every_call_of_a_stopped_worker_ends_in_its_time(own: Client, name: str) -> None:
    with stopped(own.worker.pid), stranger(own) as new:
        calls = [lambda client=client: CALLS[name](client) for client in (own, new)]
        assert max(together(3 * calls)) < TIMEOUT + GRACE


@pytest.mark.parametrize("name", TWINS)
async def test_every_twin_ends_in_its_time_and_the_loop_runs_on(own: Client, name: str) -> None:
    with stopped(own.worker.pid), stranger(own) as new, stranger(own) as attached:
        os.kill(own.worker.pid, signal.SIGCONT)
        attached.session()  # and no channel yet
        stop(own.worker.pid)
        async with watched():
            calls = [TWINS[name](client) for client in 3 * (own, new, attached)]
            assert max(await asyncio.gather(*map(atook, calls))) < TIMEOUT + GRACE


async def test_a_full_ring_is_waited_for_no_longer_than_the_call_may_take(own: Client) -> None:
    with stranger(own, timeout=TIMEOUT) as client:
        assert await client.acall("echo", 1) == 1
        with stopped(own.worker.pid):
            start = time.monotonic() - without_core()
            ended = await asyncio.gather(
                *(client.acall("echo", "x" * 3000) for _ in range(500)), return_exceptions=True
            )
            assert time.monotonic() - without_core() - start < TIMEOUT + 2 * GRACE
        assert {type(one) for one in ended} <= {molt_accel.MoltTimeout, molt_accel.MoltUnavailable}
        assert any("had no room" in str(one) for one in ended)


# -- a worker that is being started -----------------------------------------------------------------------------------


def test_a_wait_for_the_next_worker_is_part_of_a_calls_time(supervised: Client) -> None:
    with stranger(supervised, timeout=TIMEOUT) as client, stranger(supervised, timeout=60.0) as patient:
        for one in (client, patient):
            assert one.call("echo", 1) == 1
        with being_started(supervised):
            for one in (client, patient):
                took(lambda one=one: one.call("echo", 1, timeout=0.05))  # now they know that it is dead
            limited = [lambda: client.call("echo", 1), lambda: client.block(100_000), lambda: client.place(ROWS)]
            assert max(together(limited)) < TIMEOUT + GRACE, "the client's own time-out"
            entry = [lambda: patient.call("brief"), lambda: patient.call("brief", None, "arrow")]
            assert max(together(entry)) < TIMEOUT + GRACE, "the entry's limit"
            assert max(together([lambda call=call: call(patient) for call in CALLS.values()])) < TIMEOUT + GRACE
    until(lambda: supervised.call("echo", 2, timeout=20.0) == 2, "it is back")


async def test_a_wait_for_the_next_worker_is_part_of_a_twins_time(supervised: Client) -> None:
    with stranger(supervised, timeout=TIMEOUT) as client, stranger(supervised, timeout=60.0) as patient:
        for one in (client, patient):
            assert await one.acall("echo", 1) == 1
        with being_started(supervised):
            async with watched():
                assert await atook(client.acall("echo", 1)) < TIMEOUT + GRACE
                assert await atook(patient.acall("brief")) < TIMEOUT + GRACE
                times = await asyncio.gather(*(atook(call(patient)) for call in TWINS.values()))
                assert max(times) < TIMEOUT + GRACE
    assert await supervised.acall("echo", 2, timeout=20.0) == 2


REQUESTS: dict[str, bytes] = {"no body": b"", "small": b"1", "in shared memory": b"1" * 100_000}


def post(body: bytes, **given: Any) -> HttpRequest:
    return RequestFactory().post("/", body, "application/octet-stream", **given)


def test_a_views_waits_are_one(supervised: Client) -> None:
    wanted = {"entry": "echo", "codec": "raw", "timeout": TIMEOUT}
    with override_settings(MOLT={**settings_of(supervised), "TIMEOUT": 60.0}):
        assert offload(post(b"1"), **wanted).content == b"1"
        with being_started(supervised):
            offload(post(b"1"), **{**wanted, "timeout": 0.05})  # now the client knows that the worker is dead
            for body in REQUESTS.values():
                start = time.monotonic()
                assert offload(post(body), **wanted).status_code in (503, 504)
                assert time.monotonic() - start < TIMEOUT + GRACE
            start = time.monotonic()
            table = offload(post(b""), entry="echo", codec="arrow", payload=ROWS, timeout=TIMEOUT)
            assert table.status_code in (503, 504) and time.monotonic() - start < TIMEOUT + GRACE


async def test_an_async_views_waits_are_one(supervised: Client) -> None:
    wanted = {"entry": "echo", "codec": "raw", "timeout": TIMEOUT}
    with override_settings(MOLT={**settings_of(supervised), "TIMEOUT": 60.0}):
        assert (await aoffload(post(b"1"), **wanted)).content == b"1"
        with being_started(supervised):
            async with watched():
                for body in REQUESTS.values():
                    start = time.monotonic()
                    assert (await aoffload(post(body), **wanted)).status_code in (503, 504)
                    assert time.monotonic() - start < TIMEOUT + GRACE


@pytest.mark.parametrize("body", REQUESTS.values(), ids=REQUESTS)
@pytest.mark.parametrize("announced", [True, False], ids=["of a known length", "in chunks"])
def test_a_slow_upload_takes_nothing_of_a_calls_time(own: Client, body: bytes, announced: bool) -> None:
    class Slow(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            time.sleep(0.2)  # whoever sends it takes that long
            return super().read(size)

    given: dict[str, Any] = {"wsgi.input": Slow(body)}
    if not announced:
        given |= {"CONTENT_LENGTH": "", "HTTP_TRANSFER_ENCODING": "chunked", "wsgi.input_terminated": True}
    with override_settings(MOLT=settings_of(own)):
        assert offload(post(b"1"), entry="echo", codec="raw").status_code == 200
        answer = offload(post(body, **given), entry="echo", codec="raw", timeout=0.15)
        assert (answer.status_code, answer.content) == (200, body)


async def test_a_table_is_published_as_soon_as_there_is_a_worker_and_the_loop_runs_on(supervised: Client) -> None:
    async with watched():
        with being_started(supervised):
            putting = asyncio.create_task(supervised.aput("rows", ROWS))
            await asyncio.sleep(0.2)
            assert not putting.done()
        assert (await putting).rows == ROWS.num_rows


def test_what_is_sent_again_has_no_time_of_its_own(supervised: Client) -> None:
    assert supervised.call("echo", 1) == 1
    pid = supervised.stats()["worker"]["pid"]
    with stopped(supervised.worker.pid):
        stop(pid)
        killer = threading.Timer(TIMEOUT, os.kill, (pid, signal.SIGKILL))
        killer.start()
        assert took(lambda: supervised.call("echo", 2, timeout=2 * TIMEOUT)) < 2 * TIMEOUT + GRACE
        killer.join()
    assert supervised.call("echo", 3, timeout=20.0) == 3


async def test_what_a_loop_sends_again_has_no_time_of_its_own(supervised: Client) -> None:
    assert await supervised.acall("echo", 1) == 1
    pid = supervised.stats()["worker"]["pid"]
    with stopped(supervised.worker.pid):
        stop(pid)
        asyncio.get_running_loop().call_later(TIMEOUT, os.kill, pid, signal.SIGKILL)
        async with watched():
            assert await atook(supervised.acall("echo", 2, timeout=2 * TIMEOUT)) < 2 * TIMEOUT + GRACE
    assert await supervised.acall("echo", 3, timeout=20.0) == 3


async def test_closing_ends_a_wait_for_the_next_worker(supervised: Client) -> None:
    with stranger(supervised) as client:
        assert await client.acall("echo", 1) == 1
        with being_started(supervised):
            waiting = [asyncio.create_task(client.acall("echo", 2, timeout=60.0)) for _ in range(3)]
            await asyncio.sleep(TIMEOUT)
            await client.aclose()
            for call in waiting:
                with pytest.raises(molt_accel.MoltClosed):
                    async with asyncio.timeout(GRACE):
                        await call


def test_an_impatient_caller_does_not_end_the_wait_of_another(supervised: Client) -> None:
    assert supervised.call("echo", 1) == 1
    answers: list[object] = []
    patient = threading.Thread(target=lambda: answers.append(supervised.call("echo", 2, timeout=20.0)))
    with being_started(supervised):
        patient.start()
        for _ in range(3):
            assert took(lambda: supervised.call("echo", 3, timeout=0.05)) < 0.05 + GRACE
        assert patient.is_alive() and not answers
    patient.join(20)
    assert answers == [2]
