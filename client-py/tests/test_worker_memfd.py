"""Workers whose segment has no name: found by their socket alone, before and after a restart, by forked children too."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from django.test import Client as SiteClient
from django.test import override_settings

import molt_accel
from conftest import in_child, until
from molt_accel._find_worker import find_worker


@pytest.fixture
def nameless() -> Iterator[molt_accel.SpawnedClient]:
    with molt_accel.spawn(memfd=True, arena="16MiB", threads=1) as client:
        yield client


def test_the_socket_is_enough(nameless: molt_accel.SpawnedClient) -> None:
    assert nameless.shm is None and nameless.socket is not None and nameless.socket in repr(nameless)
    with molt_accel.attach(socket=nameless.socket) as other:
        assert other.call("echo", {"a": 1}) == {"a": 1}
        rows = other.query("select sum(x) as total from t", tables={"t": pa.table({"x": [1, 2, 3]})})
        assert rows.to_pyarrow().to_pylist() == [{"total": 6}]
        assert other.stats()["worker"]["pid"] == nameless.worker.pid
    assert not any(has_pid(path, nameless.worker.pid) for path in Path("/dev/shm").iterdir())


def has_pid(path: Path, pid: int) -> bool:
    """Whether that is a segment of this worker's, by the header's word at 40."""
    try:
        with path.open("rb") as file:
            return int.from_bytes(file.read(64)[40:44], "little") == pid
    except OSError:
        return False


def test_a_client_finds_the_next_worker_on_the_same_socket(nameless: molt_accel.SpawnedClient) -> None:
    assert nameless.call("echo", 1) == 1
    nameless.worker.kill()
    nameless.worker.wait()
    with pytest.raises((molt_accel.MoltUnavailable, molt_accel.MoltWorkerLost), match=str(nameless.socket)):
        nameless.call("echo", 2)
    command = [str(find_worker()), "--memfd", "--socket", str(nameless.socket), "--arena", "16MiB"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as second:
        try:
            with molt_accel.attach(socket=nameless.socket, wait=20.0):
                assert nameless.call("echo", 3) == 3
                assert nameless.stats()["worker"]["pid"] == second.pid
        finally:
            second.terminate()
    assert not Path(str(nameless.socket)).exists(), "the one that ended in good order took its socket away"


def test_stats_work_while_the_worker_hangs(nameless: molt_accel.SpawnedClient) -> None:
    assert nameless.call("echo", 1) == 1
    os.kill(nameless.worker.pid, signal.SIGSTOP)
    try:
        assert nameless.stats()["worker"]["pid"] == nameless.worker.pid
        # Somebody who has no session asks in vain, and finds the segment among what processes hold.
        assert molt_accel.Client(socket=nameless.socket).stats()["worker"]["pid"] == nameless.worker.pid
    finally:
        os.kill(nameless.worker.pid, signal.SIGCONT)


def test_a_forked_child_attaches_anew_and_keeps_no_descriptor(nameless: molt_accel.SpawnedClient) -> None:
    assert nameless.call("echo", 1) == 1

    def segments() -> int:
        shown = []
        for fd in os.listdir("/proc/self/fd"):
            try:
                shown.append(os.readlink(f"/proc/self/fd/{fd}"))
            except OSError:
                continue
        return sum(link.startswith("/memfd:molt") for link in shown)

    def check() -> None:
        assert segments() == 0, "the parent's descriptor"
        assert nameless.call("echo", 2) == 2
        assert segments() == 1
        nameless.close()

    assert in_child(check) == 0
    assert nameless.call("echo", 3) == 3
    until(lambda: len(nameless.stats()["sessions"]) == 1, "the child's session is gone")


def test_django_with_a_socket_and_no_name(nameless: molt_accel.SpawnedClient) -> None:
    with override_settings(MOLT={"SOCKET": nameless.socket}):
        response = SiteClient().post(
            "/compute/", {"values": [1, 2], "scale": 2, "offset": 0}, content_type="application/json"
        )
        assert response.json()["sum"] == 3


def test_a_socket_that_nobody_serves_is_named(tmp_path: Path) -> None:
    socket = str(tmp_path / "none.sock")
    with pytest.raises(molt_accel.MoltUnavailable, match=rf"{socket}.*hint: start one with `molt_worker --memfd"):
        molt_accel.attach(socket=socket)
    with pytest.raises(ValueError, match="no name"):
        molt_accel.spawn(memfd=True, shm="/molt0")
