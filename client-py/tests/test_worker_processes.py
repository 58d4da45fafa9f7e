"""Processes: forks, workers that die and come back, spawned workers that leave nothing."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import molt_accel
from conftest import BARE, MEMFD, attached, in_child, stop, successor, until

Client = molt_accel.SpawnedClient


def sessions(client: molt_accel.Client) -> list[int]:
    return [session["pid"] for session in client.stats()["sessions"]]


def test_a_forked_child_gets_a_session_of_its_own(client: Client) -> None:
    assert client.call("echo", 1) == 1

    def check() -> None:
        assert client.call("echo", "child") == "child"
        assert os.getpid() in sessions(client)

    assert in_child(check) == 0
    assert client.call("echo", "parent") == "parent" and os.getpid() in sessions(client)


@pytest.fixture
def roomy() -> Iterator[Client]:
    """A client of a worker with room for what three threads are answered during a fork on a busy machine: a child keeps it
    all (spec/arena.md, Forks)."""
    with molt_accel.spawn(BARE, arena="256MiB", threads=2, memfd=MEMFD) as spawned:
        yield spawned


def test_children_forked_while_threads_call(roomy: Client) -> None:
    client = roomy
    stop = threading.Event()
    wrong: list[object] = []

    def work() -> None:
        while not stop.is_set():
            if client.call("echo", "x" * 70_000) != "x" * 70_000:
                wrong.append(1)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()

    def check() -> None:
        for turn in range(20):
            assert client.call("echo", [turn, "y" * 70_000]) == [turn, "y" * 70_000]

    try:
        assert [in_child(check) for _ in range(5)] == [0] * 5
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert wrong == []


def test_a_child_frees_nothing_of_its_parent(client: Client) -> None:
    import pyarrow as pa

    table = client.query("select * from t", tables={"t": pa.table({"a": list(range(10_000))})})

    def check() -> None:
        assert table.to_pyarrow().column("a")[9_999].as_py() == 9_999
        table.close()

    assert in_child(check) == 0
    client.call("echo", bytes(1_000_000), "raw")  # would be written over the table's bytes if the child had freed them
    assert table.to_pyarrow().column("a").to_pylist() == list(range(10_000))
    table.close()


def test_a_client_survives_the_kill_of_its_worker(own: Client) -> None:
    assert own.call("echo", 1) == 1
    own.worker.kill()
    own.worker.wait()
    with pytest.raises((molt_accel.MoltUnavailable, molt_accel.MoltWorkerLost)) as refused:
        own.call("echo", 2)
    assert str(own.shm or own.socket) in str(refused.value)
    with successor(own):
        assert own.call("echo", 3) == 3


def test_a_call_in_flight_ends_when_the_worker_is_killed(own: Client) -> None:
    own.call("echo", 1)
    stop(own.worker.pid)
    ended: list[BaseException] = []

    def call() -> None:
        try:
            own.call("echo", 1, timeout=60.0)
        except molt_accel.MoltError as error:
            ended.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    until(lambda: sys._current_frames()[thread.ident].f_code.co_name == "_run", "the call waits in the library")
    own.worker.kill()
    thread.join(10)
    assert not thread.is_alive()
    assert isinstance(ended[0], (molt_accel.MoltUnavailable, molt_accel.MoltWorkerLost))


def test_attaching_waits_for_a_worker_that_comes(own: Client) -> None:
    own.worker.terminate()
    own.worker.wait()
    answers: list[object] = []
    late = threading.Thread(target=lambda: answers.append(attached(own, wait=20.0).call("echo", 1)))
    late.start()
    with successor(own):
        late.join(20)
    assert answers == [1]


@pytest.mark.parametrize("killed", [False, True])
def test_a_spawned_worker_leaves_nothing(killed: bool) -> None:
    with molt_accel.spawn(arena="16MiB", threads=1, memfd=MEMFD) as client:
        pid, folder = client.worker.pid, client.log.parent
        place = Path(str(client.socket)) if MEMFD else Path("/dev/shm", str(client.shm).strip("/"))
        assert place.exists() and client.call("health")
        if killed:
            client.worker.kill()
    assert not place.exists() and not folder.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


PARENT = """
import json, os, signal, sys, threading
import molt_accel

clients = []
starter = threading.Thread(target=lambda: clients.append(molt_accel.spawn(arena="16MiB", **json.loads(sys.argv[1]))))
starter.start()
starter.join()
(client,) = clients
assert client.call("echo", 1) == 1
child = os.fork()
if child:
    print(json.dumps([client.worker.pid, client.stats()["worker"]["pid"], child, client.where, str(client.log)]), flush=True)
signal.pause()
"""


@pytest.mark.parametrize(
    "given", [{}, {"args": ["--supervise"]}, {"memfd": True}], ids=["named", "supervised", "memfd"]
)
def test_a_worker_does_not_outlive_a_parent_that_is_killed(given: dict[str, Any]) -> None:
    """It was started by a thread that has ended, which ends nothing; the parent's forked child lives on, which keeps
    nothing."""
    command = [sys.executable, "-c", PARENT, json.dumps(given)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as parent:
        try:
            assert parent.stdout is not None
            first, serving, child, where, log = json.loads(parent.stdout.readline())
            ended = [os.pidfd_open(pid) for pid in {first, serving}]
            assert not _ended(ended, 0)
            parent.kill()
            until(lambda: _ended(ended, 1.0) == len(ended), "the worker has ended")
            place = Path(where) if "memfd" in given else Path("/dev/shm", where.strip("/"))
            until(lambda: not place.exists() and not Path(log).parent.exists(), "and has left nothing")
            assert _comm(child) == "python", "all that while the child was there"
            for process in ended:
                os.close(process)
        finally:
            os.killpg(parent.pid, signal.SIGKILL)


def _ended(processes: list[int], seconds: float) -> int:
    waiting = select.poll()
    for process in processes:
        waiting.register(process, select.POLLIN)
    return len(waiting.poll(seconds * 1000))


def _comm(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()


def test_nothing_is_left_beside_a_spawned_worker() -> None:
    with molt_accel.spawn(arena="16MiB", threads=1, memfd=MEMFD) as client:
        beside = client._guard
        assert beside is not None and beside.poll() is None
    assert beside.returncode is not None


def test_a_supervised_worker_is_started_again() -> None:
    with molt_accel.spawn(arena="16MiB", args=["--supervise"], memfd=MEMFD) as client:
        first = client.stats()["worker"]["pid"]
        assert first != client.worker.pid and client.call("echo", 1) == 1
        os.kill(first, signal.SIGKILL)

        def again() -> bool:
            try:
                return client.call("echo", 2) == 2 and client.stats()["worker"]["pid"] != first
            except (molt_accel.MoltUnavailable, molt_accel.MoltWorkerLost):
                return False

        until(again, "the next worker answers")


def test_a_worker_that_does_not_start_says_why(tmp_path: Path) -> None:
    manifest = tmp_path / "exports.json"
    manifest.write_text('{"abi_version": 1, "exports": [{"name": "x", "kind": "magic"}]}')
    with pytest.raises(molt_accel.MoltUnavailable, match="magic"):
        molt_accel.spawn(exports=manifest)


@pytest.mark.skipif(MEMFD, reason="a segment without a name holds none")
def test_a_name_that_a_live_worker_holds_is_refused(client: Client) -> None:
    with pytest.raises(molt_accel.MoltUnavailable, match=client.shm):
        molt_accel.spawn(shm=client.shm)
    assert client.call("echo", 1) == 1
