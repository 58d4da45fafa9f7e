"""Calls of a real worker: entries, codecs, params, and each way a call can fail."""

from __future__ import annotations

import datetime as dt
import os
import signal
import threading
import time
from decimal import Decimal
from typing import Any

import pytest

import molt_accel
from conftest import attached, stop, until
from molt_accel import codecs
from molt_accel.block import Block

Client = molt_accel.SpawnedClient
SIZES = [0, 1, 64, 4096, 65_536, 1_000_003, 8 * 2**20]


@pytest.mark.parametrize("codec", ["msgpack", "json"])
@pytest.mark.parametrize("value", [None, 7, -1.5, "Grüße", [], {"a": [1, {"b": None}]}, list(range(10_000))], ids=repr)
def test_echo_gives_back_what_it_got(client: Client, codec: str, value: object) -> None:
    assert client.call("echo", value, codec) == value


@pytest.mark.parametrize("size", SIZES)
def test_bytes_of_any_size_come_back_unchanged(client: Client, size: int) -> None:
    data = os.urandom(size)
    assert client.call("echo", data, "raw") == data
    assert client.call("echo", data) == data
    assert client.call("echo", memoryview(data), codec="raw") == data


def test_dates_and_decimals_travel_as_strings(client: Client) -> None:
    value = {"when": dt.datetime(2026, 1, 2, tzinfo=dt.UTC), "price": Decimal("1.50")}
    for codec in ("msgpack", "json"):
        assert client.call("echo", value, codec) == {"when": "2026-01-02T00:00:00Z", "price": "1.50"}


@pytest.mark.parametrize("codec", ["msgpack", "json"])
def test_compute(client: Client, codec: str) -> None:
    payload = {"values": [1, 2.5, -3], "scale": 2, "offset": 1}
    assert client.call("compute", payload, codec) == {"count": 3, "sum": 0.5, "scaled": [3, 6, -5]}


def test_params_win_over_the_payload(client: Client) -> None:
    assert client.call("compute", {"values": [1], "scale": 2}, params={"scale": 10})["scaled"] == [10]


def test_a_block_goes_over_without_passing_through_bytes(client: Client) -> None:
    block = Block(client.session(), 100_000)
    block.view[:5] = b"12345"
    block.shrink(5)
    answer = client.exchange("echo", block, codecs.RAW, codecs.RAW)
    assert (answer.body, answer.codec) == (b"12345", codecs.RAW)
    block.free()
    block.free()


@pytest.mark.parametrize("payload", [{"values": "no"}, {"values": ["x"]}, {}, [1], None])
def test_wrong_input_is_refused_by_the_entry(client: Client, payload: object) -> None:
    with pytest.raises(molt_accel.MoltInvalidInput) as refused:
        client.call("compute", payload)
    assert refused.value.entry == "compute" and str(refused.value)


@pytest.mark.parametrize("data", [b"", b"{", b"\xff\xfe", b'{"values": [1', b"[" * 100_000])
def test_garbage_in_a_known_codec_is_refused_and_the_worker_goes_on(client: Client, data: bytes) -> None:
    with pytest.raises(molt_accel.MoltInvalidInput):
        client.call("compute", data, "json")
    assert client.call("echo", 1) == 1


def test_an_unknown_entry_is_named(client: Client) -> None:
    with pytest.raises(molt_accel.MoltUnknownEntry, match="no_such_entry"):
        client.call("no_such_entry", {})


def test_a_payload_beyond_the_arena_is_too_large(client: Client) -> None:
    with pytest.raises(molt_accel.MoltTooLarge):
        client.call("echo", bytes(64 * 2**20), "raw")
    assert client.call("echo", 1) == 1


def test_a_deadline_that_has_passed_is_a_timeout(client: Client) -> None:
    with pytest.raises(molt_accel.MoltTimeout):
        client.call("echo", 1, timeout=1e-9)


@pytest.mark.parametrize("how", ["call", "client", "first call"])
def test_a_stopped_worker_is_a_timeout_on_time(own: Client, how: str) -> None:
    client = attached(own, timeout=0.3 if how == "client" else 60.0)
    if how != "first call":  # the first one needs the worker for a channel
        assert client.call("echo", 1) == 1
    stop(own.worker.pid)
    start = time.monotonic()
    try:
        with pytest.raises(molt_accel.MoltTimeout):
            client.call("echo", 1, timeout=None if how == "client" else 0.3)
        assert 0.25 < time.monotonic() - start < 5.0
    finally:
        os.kill(own.worker.pid, signal.SIGCONT)
    assert client.call("echo", 2, timeout=10.0) == 2
    client.close()


def test_ctrl_c_interrupts_a_wait_at_once_and_the_client_goes_on(own: Client) -> None:
    """Fault 59."""
    assert own.call("echo", 1) == 1
    stop(own.worker.pid)
    timer = threading.Timer(0.2, lambda: signal.pthread_kill(threading.main_thread().ident, signal.SIGINT))
    timer.start()
    start = time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt):
            own.call("echo", 1, timeout=60.0)
        assert time.monotonic() - start < 10.0
    finally:
        timer.join()
        os.kill(own.worker.pid, signal.SIGCONT)
    assert own.call("echo", 2) == 2


def test_a_signal_handler_that_returns_does_not_disturb_the_wait(own: Client) -> None:
    seen: list[Any] = []
    assert own.call("echo", 1) == 1
    stop(own.worker.pid)

    def handler(*args: object) -> None:
        seen.append(args)
        os.kill(own.worker.pid, signal.SIGCONT)

    before = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        assert own.call("echo", "waited", timeout=60.0) == "waited" and len(seen) == 1
    finally:
        signal.signal(signal.SIGALRM, before)
        os.kill(own.worker.pid, signal.SIGCONT)


def test_threads_share_a_client(client: Client) -> None:
    wrong: list[object] = []

    def work(number: int) -> None:
        for turn in range(300):
            payload = [number, turn, "x" * (turn * 37 % 20_000)]
            if client.call("echo", payload) != payload:
                wrong.append(payload)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_ping_and_stats(client: Client) -> None:
    assert 0 < client.ping() < 5
    stats = client.stats()
    assert stats["worker"]["pid"] == client.worker.pid and stats["segment"]["name"] == client.where
    assert os.getpid() in [session["pid"] for session in stats["sessions"]]


def test_nothing_is_held_after_calls(client: Client) -> None:
    """Answers that lay in the arena are given back at once."""
    for _ in range(50):
        client.call("echo", bytes(300_000), "raw")
    until(lambda: sum(session["leases"] for session in client.stats()["sessions"]) == 0, "leases come back")


def test_a_closed_client_refuses_and_its_session_ends() -> None:
    with molt_accel.spawn(arena="16MiB") as own:
        other = attached(own)
        with other:
            assert len(own.stats()["sessions"]) == 2
        until(lambda: len(own.stats()["sessions"]) == 1, "the session ends")
        with pytest.raises(molt_accel.MoltClosed):
            other.call("echo", 1)


def test_an_event_takes_a_call_back(own: Client) -> None:
    event = threading.Event()
    assert own.call("echo", 1, cancel=event) == 1
    stop(own.worker.pid)
    try:
        threading.Timer(0.2, event.set).start()
        began = time.monotonic()
        with pytest.raises(molt_accel.MoltCancelled, match="wants no answer any more") as caught:
            own.call("echo", 2, timeout=60, cancel=event)
        assert time.monotonic() - began < 30 and caught.value.entry == "echo"
    finally:
        os.kill(own.worker.pid, signal.SIGCONT)
    until(lambda: own.call("echo", 3, cancel=threading.Event()) == 3, "others are served")
    until(lambda: own.stats()["totals"]["cancelled"] == 1, "the worker never ran it")
