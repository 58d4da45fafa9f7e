"""Workers that are replaced, upgraded and killed while event loops and threads of this process have work for them."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pyarrow as pa
import pytest

import molt_accel
from conftest import MEMFD, until

Client = molt_accel.SpawnedClient


@pytest.fixture
def supervised() -> Iterator[Client]:
    """A client of a supervised worker."""
    with molt_accel.spawn(arena="32MiB", threads=2, args=["--supervise"], memfd=MEMFD) as spawned:
        yield spawned


def serving(client: molt_accel.Client) -> int:
    """The process of the worker that serves, or 0."""
    try:
        worker = client.stats()["worker"]
    except molt_accel.MoltError:
        return 0
    return int(worker["pid"]) if worker["state"] == "serving" else 0


async def another(client: molt_accel.Client, before: int) -> int:
    """Waits for the next worker."""
    async with asyncio.timeout(20):
        while serving(client) in (0, before):
            await asyncio.sleep(0.005)
    return serving(client)


@asynccontextmanager
async def loaded(client: Client, tasks: int = 16) -> AsyncIterator[Callable[[int], Any]]:
    """Keeps that many requests in flight; yields a wait for more of them to end. No request may fail."""
    stop, answered = False, 0

    async def ask(payload: bytes) -> None:
        nonlocal answered
        while not stop:
            assert await client.acall("echo", payload, codec="raw", timeout=20.0) == payload
            answered += 1

    asking = [asyncio.create_task(ask(bytes([number]) * [10, 7_000, 70_000][number % 3])) for number in range(tasks)]

    async def more(count: int) -> None:
        wanted = answered + count
        async with asyncio.timeout(20):
            while answered < wanted:
                for task in asking:
                    if task.done():
                        task.result()
                await asyncio.sleep(0.005)

    try:
        yield more
        stop = True
        await asyncio.gather(*asking)
    finally:
        stop = True
        for task in asking:
            task.cancel()


async def test_an_event_loop_loses_nothing_in_upgrades(supervised: Client) -> None:
    """Fault 34: the supervisor is told to start a new worker while the loop has requests in flight."""
    pid = serving(supervised)
    async with loaded(supervised) as more:
        for _ in range(3):
            await more(50)
            supervised.worker.send_signal(signal.SIGHUP)
            pid = await another(supervised, pid)
            await more(50)


async def test_an_event_loop_loses_nothing_when_its_worker_is_killed_again_and_again(supervised: Client) -> None:
    """Faults 7-11, 34: `echo` may run twice, so every request ends well."""
    pid = serving(supervised)
    async with loaded(supervised) as more:
        for _ in range(4):
            await more(50)
            os.kill(pid, signal.SIGKILL)
            pid = await another(supervised, pid)
            await more(50)


def test_shared_memory_for_a_body_waits_for_the_next_worker(supervised: Client) -> None:
    """Faults 7-11: who wants room for a payload while a worker is being started gets it from that one."""
    supervised.block(1).free()
    pid, got = serving(supervised), []

    def ask() -> None:
        block = supervised.block(100_000)
        got.append(block.size)
        block.free()

    asking = [threading.Thread(target=ask) for _ in range(4)]
    supervised.worker.send_signal(signal.SIGSTOP)  # it starts the next one only when it is told to go on
    try:
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(molt_accel.MoltError):  # the client learns of it
            supervised.call("echo", 1, timeout=0.05)
        for thread in asking:
            thread.start()
        for thread in asking:
            thread.join(0.1)
            assert thread.is_alive(), "there is no worker to get shared memory from"
    finally:
        supervised.worker.send_signal(signal.SIGCONT)
    for thread in asking:
        thread.join(20)
    assert got == [100_000] * 4


async def test_the_loop_runs_on_while_the_next_worker_is_started(supervised: Client) -> None:
    """Faults 7-11: waiting for a worker is done elsewhere; requests made meanwhile wait too, and are answered."""
    assert await supervised.acall("echo", 1) == 1
    longest = 0.0

    async def watch() -> None:
        nonlocal longest
        last = time.monotonic()
        while True:
            await asyncio.sleep(0.005)
            now = time.monotonic()
            longest, last = max(longest, now - last), now

    watching = asyncio.create_task(watch())
    os.kill(serving(supervised), signal.SIGKILL)
    answers = await asyncio.gather(*(supervised.acall("echo", number, timeout=20.0) for number in range(200)))
    watching.cancel()
    assert answers == list(range(200))
    assert longest < 2.0  # it would be as long as the start of a worker takes, with every look for one on top


async def test_a_table_waits_for_the_next_worker(supervised: Client) -> None:
    """Faults 7-11: a table is placed in the arena of a worker, which must be there first."""
    rows = pa.table({"a": [1, 2, 3]})
    for _ in range(2):
        os.kill(serving(supervised), signal.SIGKILL)
        table = await supervised.aquery("select sum(a) as s from t", tables={"t": rows}, timeout=20.0)
        assert table.to_pyarrow().column("s").to_pylist() == [6]
        await asyncio.sleep(0)


class Fatal:
    """A table, and the death of the worker into whose memory it was about to go."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.deadly = True

    def __arrow_c_stream__(self, requested: object = None) -> object:
        if self.deadly:
            self.deadly = False
            before = serving(self.client)
            os.kill(before, signal.SIGKILL)
            with molt_accel.Client(self.client.shm, socket=self.client.socket, timeout=20.0) as other:
                until(lambda: other.call("health")["pid"] != before, "the next worker")
        return pa.table({"a": [1, 2, 3]}).__arrow_c_stream__(requested)


class FatalTable(Fatal):
    """One that can be read again."""

    def __len__(self) -> int:
        return 3


def test_a_worker_that_dies_just_before_a_table_is_placed(supervised: Client) -> None:
    """Faults 7-11, 14: what was free in the dead worker's memory is the system's by then."""
    answer = supervised.query("select sum(a) as s from t", tables={"t": FatalTable(supervised)}, timeout=20.0)
    assert answer.to_pyarrow().to_pylist() == [{"s": 6}]
    assert supervised.put("t", FatalTable(supervised), timeout=20.0).rows == 3
    with pytest.raises(molt_accel.MoltUnavailable):  # a reader may have been read: it is not asked again
        supervised.query("select sum(a) as s from t", tables={"t": Fatal(supervised)}, timeout=20.0)


async def test_a_worker_that_dies_just_before_an_event_loop_places_a_table(supervised: Client) -> None:
    """The same for event loops."""
    answer = await supervised.aquery("select sum(a) as s from t", tables={"t": FatalTable(supervised)}, timeout=20.0)
    assert answer.to_pyarrow().to_pylist() == [{"s": 6}]
    assert (await supervised.aput("t", FatalTable(supervised), timeout=20.0)).rows == 3


def test_a_table_of_a_thread_waits_for_the_next_worker(supervised: Client) -> None:
    """Faults 7-11, without an event loop."""
    rows = pa.table({"a": [1, 2, 3]})
    first = serving(supervised)
    os.kill(first, signal.SIGKILL)
    until(lambda: serving(supervised) != first, "the worker is dead")
    table = supervised.query("select sum(a) as s from t", tables={"t": rows}, timeout=20.0)
    assert table.to_pyarrow().column("s").to_pylist() == [6]


@contextmanager
def replaced(client: Client) -> Iterator[subprocess.Popen[bytes]]:
    """Starts a successor from outside."""
    successor = subprocess.Popen([*client.worker.args, "--replace"], stderr=subprocess.DEVNULL)
    try:
        yield successor
    finally:
        successor.terminate()
        successor.wait(20)


async def test_requests_that_wait_move_to_the_successor(own: Client) -> None:
    """Fault 34: a stopped worker has not taken them; when it goes on, it hands them to its successor."""
    assert await own.acall("echo", 1) == 1
    os.kill(own.worker.pid, signal.SIGSTOP)
    calls = [asyncio.create_task(own.acall("echo", number, timeout=20.0)) for number in range(50)]
    await asyncio.sleep(0)
    with replaced(own) as successor:
        # Who has a session looks at its segment, which is the stopped worker's; this one has none.
        await another(molt_accel.Client(own.shm, socket=own.socket), own.worker.pid)
        os.kill(own.worker.pid, signal.SIGCONT)
        assert await asyncio.gather(*calls) == list(range(50))
        async with asyncio.timeout(20):
            while own.worker.poll() is None:
                await asyncio.sleep(0.005)
        assert (await own.astats())["worker"]["pid"] == successor.pid


async def test_where_nobody_starts_a_worker_the_caller_knows_soon(own: Client) -> None:
    """Without a supervisor a dead worker stays dead: no request waits for its deadline."""
    assert await own.acall("echo", 1) == 1
    own.worker.kill()
    own.worker.wait()
    start = time.monotonic()
    with pytest.raises((molt_accel.MoltUnavailable, molt_accel.MoltWorkerLost)) as refused:
        await own.acall("echo", 2, timeout=60.0)
    assert time.monotonic() - start < 10.0 and "hint:" in str(refused.value)


def test_ctrl_c_ends_the_wait_for_a_worker(supervised: Client) -> None:
    """Fault 59: also while there is nobody to ask yet. The supervisor is stopped, so no worker comes."""
    assert supervised.call("echo", 1) == 1
    first = serving(supervised)
    done = threading.Event()

    def interrupt() -> None:
        while not done.wait(0.5):  # again, should the first one come between two system calls
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    os.kill(supervised.worker.pid, signal.SIGSTOP)
    try:
        os.kill(first, signal.SIGKILL)
        until(lambda: not serving(supervised), "the worker is dead")
        start = time.monotonic()
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            supervised.call("echo", 2, timeout=60.0)
        done.set()
        assert time.monotonic() - start < 20.0
    finally:
        done.set()
        os.kill(supervised.worker.pid, signal.SIGCONT)
        thread.join()
    assert supervised.call("echo", 3, timeout=20.0) == 3
