"""Event loops: no thread waits, cancelling reaches the worker, deadlines hold, loops come and go.

Every coroutine here runs on asyncio's own loop and on uvloop, see conftest.py.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import threading
import time
from typing import Any

import pytest
import uvloop

import molt_accel
from conftest import attached, stop, until
from molt_accel import aio

Client = molt_accel.SpawnedClient


async def test_every_method_has_its_twin(client: Client) -> None:
    assert await client.acall("echo", {"a": 1}) == {"a": 1}
    assert await client.acall("echo", [1], codec="json") == [1]
    assert await client.acall("echo", bytes(1_000_000), codec="raw") == bytes(1_000_000)
    assert (await client.acall("compute", {"values": [1]}, params={"scale": 3}))["scaled"] == [3]
    assert 0 < await client.aping() < 5
    assert (await client.astats())["worker"]["pid"] == client.worker.pid
    async with molt_accel.Client(client.shm, socket=client.socket) as other:
        assert await other.acall("echo", 1) == 1
    with pytest.raises(molt_accel.MoltClosed):
        await other.acall("echo", 1)


async def test_many_in_flight_and_no_thread_for_them(client: Client) -> None:
    await client.acall("echo", 0)
    threads = threading.active_count()
    calls = [asyncio.create_task(client.acall("echo", [number, "x" * 500])) for number in range(2000)]
    await asyncio.sleep(0)
    assert threading.active_count() == threads
    assert [number for number, _ in await asyncio.gather(*calls)] == list(range(2000))


async def test_who_waits_for_room_is_not_passed_by_those_who_come_later(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aio, "_LINE_SECONDS", 60.0)  # on a busy machine the line would be too long to stay one
    calls, done = 20, [0] * 300

    async def caller(number: int) -> None:
        for _ in range(calls):
            await client.acall("echo", number)
            done[number] += 1

    await asyncio.wait([asyncio.create_task(caller(number)) for number in range(300)], return_when=asyncio.FIRST_COMPLETED)
    assert max(done) == calls and min(done) >= calls // 2, sorted(done)[::30]
    await until_idle(done, calls)


async def test_where_more_comes_than_can_be_answered_the_last_come_first(own: Client) -> None:
    await own.acall("echo", 1)
    stop(own.worker.pid)
    try:
        waiting = [asyncio.create_task(own.acall("echo", number, timeout=20.0)) for number in range(600)]
        channel = await channel_of(own)
        while not channel._is_overloaded():
            await asyncio.sleep(0.01)
        last = asyncio.create_task(own.acall("echo", "last", timeout=20.0))
        answered: list[asyncio.Task[Any]] = []  # in their order: all may come in one turn of the loop
        for task in (*waiting, last):
            task.add_done_callback(answered.append)
        await asyncio.sleep(0)
        line = list(channel._no_room)
        while channel._no_room[-1][0] is line[-1][0]:  # a scan wakes one, who finds no room and takes its place again
            await asyncio.sleep(0.01)
    finally:
        os.kill(own.worker.pid, signal.SIGCONT)
    assert await last == "last"
    assert await asyncio.gather(*waiting) == list(range(600))
    assert answered.index(last) < 500, "those who came before waited on"


async def channel_of(client: Client) -> aio.Channel:
    """That of the running loop, once it is open."""
    while not (channels := client._channels):
        await asyncio.sleep(0)
    return aio.channel_of_running_loop(client, channels)


async def until_idle(done: list[int], calls: int) -> None:
    """Waits for the callers that were left running."""
    while min(done) < calls:
        await asyncio.sleep(0.01)


async def test_failures_are_raised_where_they_are_awaited(client: Client) -> None:
    good, unknown, wrong = await asyncio.gather(
        client.acall("echo", 1), client.acall("nobody", 1), client.acall("compute", 1), return_exceptions=True
    )
    assert good == 1
    assert isinstance(unknown, molt_accel.MoltUnknownEntry) and unknown.entry == "nobody"
    assert isinstance(wrong, molt_accel.MoltInvalidInput)


async def test_a_stopped_worker_is_a_timeout_on_time_and_the_loop_runs_on(own: Client) -> None:
    await own.acall("echo", 1)
    stop(own.worker.pid)
    try:
        turns = 0
        call = asyncio.create_task(own.acall("echo", 1, timeout=0.3))
        start = time.monotonic()
        while not call.done():
            await asyncio.sleep(0.01)
            turns += 1
        with pytest.raises(molt_accel.MoltTimeout):
            await call
        assert 0.25 < time.monotonic() - start < 5.0 and turns > 5
    finally:
        os.kill(own.worker.pid, signal.SIGCONT)
    assert await own.acall("echo", 2, timeout=10.0) == 2


async def test_cancelling_the_task_cancels_the_request(own: Client) -> None:
    await own.acall("echo", 1)
    stop(own.worker.pid)
    call = asyncio.create_task(own.acall("echo", 1, timeout=60.0))
    await asyncio.sleep(0)  # it is submitted now
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    os.kill(own.worker.pid, signal.SIGCONT)
    assert await own.acall("echo", 2) == 2
    until(lambda: own.stats()["totals"]["cancelled"] >= 1, "the worker counts the cancelled request")


async def test_a_killed_worker_ends_what_is_in_flight(own: Client) -> None:
    await own.acall("echo", 1)
    stop(own.worker.pid)
    call = asyncio.create_task(own.acall("echo", 1, timeout=60.0))
    await asyncio.sleep(0)
    own.worker.kill()
    with pytest.raises((molt_accel.MoltUnavailable, molt_accel.MoltWorkerLost)):
        async with asyncio.timeout(10):
            await call


async def test_closing_ends_what_is_in_flight(own: Client) -> None:
    other = attached(own)
    await other.acall("echo", 1)
    stop(own.worker.pid)
    try:
        call = asyncio.create_task(other.acall("echo", 1, timeout=60.0))
        await asyncio.sleep(0)
        await other.aclose()
        with pytest.raises(molt_accel.MoltClosed):
            await call
    finally:
        os.kill(own.worker.pid, signal.SIGCONT)


def test_loops_come_and_go_and_leave_nothing(client: Client) -> None:
    async def one() -> int:
        return await client.acall("echo", 1)

    def channels() -> int:
        mine = [session for session in client.stats()["sessions"] if session["pid"] == os.getpid()]
        return sum(session["channels"] for session in mine)

    descriptors = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        asyncio.run(one())
        uvloop.run(one())
    kept = channels()
    for _ in range(30):
        asyncio.run(one())
        uvloop.run(one())
    gc.collect()
    assert channels() <= kept
    assert len(os.listdir("/proc/self/fd")) <= descriptors + 8  # a pool of channels stays, loops do not


def test_loops_in_threads_share_a_client(client: Client) -> None:
    async def work(number: int) -> list[int]:
        return await asyncio.gather(*(client.acall("echo", number * 1000 + turn) for turn in range(200)))

    results: dict[int, list[int]] = {}
    threads = [
        threading.Thread(target=lambda number=number: results.update({number: asyncio.run(work(number))}))
        for number in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {number: [number * 1000 + turn for turn in range(200)] for number in range(4)}


async def test_no_request_is_lost_when_the_worker_is_replaced(own: Client) -> None:
    stop, answered = False, 0

    async def ask(payload: bytes) -> None:
        nonlocal answered
        while not stop:
            assert await own.acall("echo", payload, codec="raw") == payload
            answered += 1

    asking = [asyncio.create_task(ask(bytes([number]) * 7_000)) for number in range(16)]
    successor = subprocess.Popen([*own.worker.args, "--replace"], stderr=subprocess.DEVNULL)
    try:
        async with asyncio.timeout(20):
            while own.worker.poll() is None:
                await asyncio.sleep(0.005)
            before = answered
            while answered < before + 200:
                await asyncio.sleep(0.005)
        stop = True
        await asyncio.gather(*asking)
        assert (await own.astats())["worker"]["pid"] == successor.pid
    finally:
        stop = True
        successor.terminate()
        successor.wait(20)
