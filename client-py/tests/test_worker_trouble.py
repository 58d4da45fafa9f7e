"""A worker that dies again and again, or stays away: how much is asked of it, and who waits for it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from django.test import Client as Browser
from django.test import override_settings

import molt_accel
from conftest import BARE, in_child, stop, until
from molt_accel import codecs
from molt_accel._lib import lib
from molt_accel.breaker import FAILURES
from molt_accel.django import client as process_client
from molt_accel.django import signals

Client = molt_accel.SpawnedClient

SLOW = "select count(*) as n from t x, t y where x.a * y.a % 7 = 3"
ROWS = pa.table({"a": list(range(15_000))})
ROUNDS = 30
"""Of trials to find the purse empty, which gets a token every fifth of a second."""


@pytest.fixture
def supervised(tmp_path: Path) -> Iterator[Client]:
    """A client of a supervised worker with an entry that runs for about a second, and may run twice."""
    manifest = tmp_path / "exports.json"
    entry = {"name": "slow", "kind": "sql", "sql": SLOW, "input": "t", "timeout_ms": 120_000}
    manifest.write_text(json.dumps({"abi_version": 1, "exports": [entry]}))
    with molt_accel.spawn(exports=manifest, arena="32MiB", threads=2, args=["--supervise"]) as spawned:
        yield spawned


def worker_of(client: Client) -> dict[str, Any]:
    return client.stats()["worker"]


def is_running(client: Client) -> bool:
    try:
        return sum(session["in_flight"] for session in client.stats()["sessions"]) > 0
    except molt_accel.MoltUnavailable:
        return False


def empty_the_purse(client: molt_accel.Client) -> int:
    """Spends all tokens; how many there were."""
    count = 0
    while lib.molt_may_send_again(client.session(), 1):
        count += 1
    return count


def kill_once_running(client: Client, ended: threading.Event) -> None:
    """Kills the worker as soon as it runs something, having spent what the budget has until then."""
    until(lambda: is_running(client) or ended.is_set(), "the entry runs", 60)
    pid = worker_of(client)["pid"]
    empty_the_purse(client)
    os.kill(pid, signal.SIGKILL)


def test_a_lost_request_is_sent_again_as_long_as_the_budget_lasts(supervised: Client) -> None:
    assert supervised.retries() == {"sent": 0, "moved": 0, "again": 0, "refused": 0}
    assert supervised.call("echo", 1) == 1
    assert supervised.retries()["sent"] == 1
    assert 100 <= empty_the_purse(supervised) <= 105, "a burst, and what has come meanwhile"
    for _ in range(ROUNDS):
        ended = threading.Event()
        killer = threading.Thread(target=kill_once_running, args=(supervised, ended))
        killer.start()
        try:
            supervised.call("slow", ROWS, "arrow", timeout=120.0)
        except molt_accel.MoltWorkerLost as lost:
            assert "not sent again: the retry budget" in str(lost) and lost.details == {"idempotent": True}
            break
        finally:
            ended.set()
            killer.join()
    else:
        pytest.fail("the budget never ran out")
    assert supervised.retries()["refused"] > 1
    assert supervised.call("echo", 2, timeout=60.0) == 2, "what never ran needs no budget"


async def test_event_loops_spend_the_same_budget(supervised: Client) -> None:
    for _ in range(ROUNDS):
        ended = threading.Event()
        killer = asyncio.create_task(asyncio.to_thread(kill_once_running, supervised, ended))
        try:
            await supervised.acall("slow", ROWS, "arrow", timeout=120.0)
        except molt_accel.MoltWorkerLost as lost:
            assert "not sent again: the retry budget" in str(lost) and lost.details == {"idempotent": True}
            break
        finally:
            ended.set()
            await killer
    else:
        pytest.fail("the budget never ran out")
    assert await supervised.acall("echo", 2, timeout=60.0) == 2


async def test_an_event_loop_says_what_was_sent_twice(supervised: Client) -> None:
    call = asyncio.create_task(
        supervised.aexchange("slow", supervised.place(ROWS), codecs.ARROW, codecs.JSON, timeout=120.0)
    )
    while not is_running(supervised):
        await asyncio.sleep(0.005)
        assert not call.done()
    os.kill(worker_of(supervised)["pid"], signal.SIGKILL)
    assert (await call).metrics.resent
    assert supervised.retries()["again"] == 1


# -- the circuit breaker ----------------------------------------------------------------------------------------------


class States:
    """What a client's breaker tells."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []

    def __call__(self, client: molt_accel.Client, state: str, reason: str) -> None:
        self.told.append((state, reason))

    @property
    def states(self) -> list[str]:
        return [state for state, _ in self.told]


def refusal(client: molt_accel.Client) -> str:
    with pytest.raises((molt_accel.MoltUnavailable, molt_accel.MoltWorkerLost)) as refused:
        client.call("echo", 1, timeout=5.0)
    return str(refused.value)


def opened(client: molt_accel.Client) -> None:
    until(lambda: refusal(client) and client.breaker.state == "open", "the breaker opens")


def test_it_opens_when_the_worker_dies_and_closes_with_the_first_call_after_its_return(own: Client) -> None:
    states = States()
    client = molt_accel.Client(own.shm, socket=own.socket, on_state=states)
    assert client.call("echo", 1) == 1 and client.breaker.state == "closed" and client.breaker.is_clear
    own.worker.kill()
    own.worker.wait()
    for failures in range(1, FAILURES):
        refusal(client)
        assert client.breaker.state == "closed" and client.breaker.failures <= failures
    opened(client)
    assert states.states == ["open"] and "hint:" in states.told[0][1]
    until(lambda: "circuit breaker" in refusal(client), "a call does not look for a worker")
    with molt_accel.spawn(BARE, arena="16MiB", shm=own.shm):
        assert client.call("echo", 2) == 2, "the first one"
        assert client.breaker.state == "closed" and client.breaker.is_clear and states.states == ["open", "closed"]
    client.close()


def test_who_waits_for_a_worker_that_never_comes_stops_waiting() -> None:
    client = molt_accel.Client("/molt-tests-nobody", wait=0.1)
    opened(client)
    assert client.breaker.failures >= FAILURES
    assert "hint: start" in refusal(client)
    client.close()


def test_nobody_queues_for_a_worker_whose_supervisor_does_not_start_it(supervised: Client) -> None:
    """Each call waits for its own deadline, until five have waited in vain; then one at a time does."""
    assert supervised.call("echo", 1) == 1
    pid = worker_of(supervised)["pid"]
    stop(supervised.worker.pid)
    ended: list[str] = []

    def wait_in_earnest() -> None:
        try:
            ended.append(str(supervised.call("echo", 2, timeout=60.0)))
        except molt_accel.MoltUnavailable as refused:
            ended.append(str(refused))

    threads = [threading.Thread(target=wait_in_earnest) for _ in range(8)]
    try:
        os.kill(pid, signal.SIGKILL)
        until(lambda: worker_of(supervised)["state"] != "serving", "it is dead")
        for _ in range(FAILURES):
            with pytest.raises((molt_accel.MoltUnavailable, molt_accel.MoltWorkerLost)):
                supervised.call("echo", 1, timeout=0.1)
        assert supervised.breaker.state == "open"
        for thread in threads:
            thread.start()
        until(lambda: len(ended) >= 7, "all but one give up")
        assert all("circuit breaker" in text for text in ended)
    finally:
        os.kill(supervised.worker.pid, signal.SIGCONT)
    for thread in threads:
        thread.join(60)
    until(lambda: _answers(supervised), "it is back")
    assert supervised.breaker.state == "closed"


def _answers(client: molt_accel.Client) -> bool:
    try:
        return client.call("echo", 3, timeout=20.0) == 3
    except molt_accel.MoltUnavailable:
        return False


def test_it_finds_a_worker_without_a_name_by_trying() -> None:
    with molt_accel.spawn(BARE, arena="16MiB", memfd=True) as own:
        client = molt_accel.Client(socket=own.socket)
        assert client.call("echo", 1) == 1
        own.worker.kill()
        own.worker.wait()
        opened(client)
        with subprocess.Popen(own.worker.args, stderr=subprocess.DEVNULL) as successor:
            try:
                until(lambda: _answers(client), "one of its tries finds the successor")
                assert client.breaker.state == "closed"
            finally:
                client.close()
                successor.terminate()


async def test_event_loops_share_the_breaker_of_their_client(own: Client) -> None:
    states = States()
    client = molt_accel.Client(own.shm, socket=own.socket, on_state=states)
    assert await client.acall("echo", 1) == 1
    own.worker.kill()
    own.worker.wait()
    for _ in range(2 * FAILURES):
        with pytest.raises((molt_accel.MoltUnavailable, molt_accel.MoltWorkerLost)):
            await client.acall("echo", 1, timeout=5.0)
    assert client.breaker.state == "open" and states.states == ["open"]
    with molt_accel.spawn(BARE, arena="16MiB", shm=own.shm):
        assert await client.acall("echo", 2) == 2 and states.states == ["open", "closed"]
    await client.aclose()


def test_a_forked_child_begins_with_a_closed_one() -> None:
    client = molt_accel.Client("/molt-tests-nobody")
    opened(client)

    def check() -> None:
        assert client.breaker.state == "closed" and client.breaker.is_clear
        assert "circuit breaker" not in refusal(client)

    assert in_child(check) == 0
    client.close()


def test_django_logs_it_and_sends_a_signal(own: Client, caplog: pytest.LogCaptureFixture) -> None:
    told: list[tuple[str, str]] = []

    def receive(sender: Any, client: Any, state: str, reason: str, **kwargs: Any) -> None:
        told.append((sender, state))

    signals.breaker_changed.connect(receive)
    try:
        with override_settings(MOLT={"SHM": own.shm}), caplog.at_level("INFO", "molt_accel.request"):
            site = Browser()
            assert site.post("/careful/", [1], content_type="application/json").content == b"[1]"
            own.worker.kill()
            own.worker.wait()
            for _ in range(3 * FAILURES):
                site.post("/careful/", [1], content_type="application/json")
            assert process_client().breaker.state == "open" and told == [(own.shm, "open")]
            response = site.post("/compute/", {"values": []}, content_type="application/json")
            assert response.status_code == 503
            with molt_accel.spawn(BARE, arena="16MiB", shm=own.shm):
                assert site.post("/careful/", [1], content_type="application/json").content == b"[1]"
            assert told == [(own.shm, "open"), (own.shm, "closed")]
    finally:
        signals.breaker_changed.disconnect(receive)
    said = [record.getMessage() for record in caplog.records if "circuit breaker of" in record.getMessage()]
    assert [text.split(": ")[0].rsplit(" ", 1)[-1] for text in said] == ["open", "closed"]
