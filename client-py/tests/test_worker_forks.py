"""What a forked child inherited stays as it is for as long as the child lives, whatever its parent does."""

from __future__ import annotations

import gc
import http.client
import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

import molt_accel
from conftest import attached, until

Client = molt_accel.SpawnedClient
ROWS = 200_000


def used(client: molt_accel.Client) -> int:
    return client.stats()["arena"]["used_bytes"]


def result(client: molt_accel.Client) -> molt_accel.Table:
    import pyarrow as pa

    return client.query("select a * 3 as b from t", tables={"t": pa.table({"a": range(ROWS)})})


def is_whole(table: Any) -> bool:
    return sorted(table.to_pyarrow().column("b").to_pylist()) == [3 * row for row in range(ROWS)]


def overwrite_all_that_is_free(client: molt_accel.Client) -> None:
    import pyarrow as pa

    held = []
    with pytest.raises((molt_accel.MoltBusy, molt_accel.MoltInternalError)):
        while True:
            held.append(client.query("select a from t", tables={"t": pa.table({"a": [-1] * ROWS})}))
    for table in held:
        table.close()


class Look:
    """A child that says, when told to look, whether what it inherited is there; it lives until `end`."""

    def __init__(self, table: Any) -> None:
        asked, self._ask = os.pipe()
        self._told, tell = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self._ask)
            os.close(self._told)
            try:
                while os.read(asked, 1):
                    os.write(tell, b"y" if is_whole(table) else b"n")
            finally:
                os._exit(0)
        os.close(asked)
        os.close(tell)

    def looks(self) -> bool:
        os.write(self._ask, b"?")
        return os.read(self._told, 1) == b"y"

    def end(self) -> None:
        os.close(self._ask)
        os.close(self._told)
        os.waitpid(self.pid, 0)


@pytest.mark.parametrize("closes", ["the table", "the client"])
def test_a_table_stays_when_the_parent_lets_go_of_it(own: Client, closes: str) -> None:
    """Fault 29."""
    other = attached(own)
    table = result(other)
    child = Look(table)
    table.close()
    if closes == "the client":
        other.close()
        until(lambda: len(own.stats()["sessions"]) == 1, "the session ends")
    gc.collect()
    overwrite_all_that_is_free(own)
    assert child.looks()
    assert used(own) > 0
    child.end()
    until(lambda: used(own) == 0, "the bytes come back when the child is gone")
    other.close()


def test_a_table_stays_when_the_parent_dies(own: Client) -> None:
    """Fault 29."""
    asked, ask = os.pipe()
    told, tell = os.pipe()
    parent = os.fork()
    if parent == 0:
        os.close(ask)
        os.close(told)
        table = result(own)  # through a session of its own
        child = os.fork()
        while child == 0 and os.read(asked, 1):  # the grandchild; its parent is gone by the time it is asked
            os.write(tell, b"y" if is_whole(table) else b"n")
        os._exit(0)
    os.close(asked)
    os.close(tell)
    os.waitpid(parent, 0)
    until(lambda: parent not in [session["pid"] for session in own.stats()["sessions"]], "its session ends")
    overwrite_all_that_is_free(own)
    os.write(ask, b"?")
    assert os.read(told, 1) == b"y"
    assert used(own) > 0
    os.close(ask)
    os.close(told)
    until(lambda: used(own) == 0, "the bytes come back when the child is gone")


def test_children_forked_while_threads_make_tables_read_what_they_inherit(own: Client) -> None:
    done = threading.Event()
    wrong: list[object] = []
    latest: list[Any] = [result(own)]

    def work() -> None:
        while not done.is_set():
            made = result(own)
            former, latest[0] = latest[0], made
            former.close()

    def check(table: Any) -> None:
        # Closed by a thread just before the fork: then there is nothing to look at.
        try:
            fine = is_whole(table)
        except molt_accel.MoltClosed:
            fine = True
        os._exit(0 if fine and own.call("echo", "child") == "child" else 1)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(6):
            pid = os.fork()
            if pid == 0:
                try:
                    check(latest[0])
                finally:
                    os._exit(2)
            if status := os.waitpid(pid, 0)[1]:
                wrong.append(status)
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert wrong == []
    latest[0].close()
    until(lambda: used(own) == 0, "nothing is kept for children that are gone")


def test_a_resident_table_stays_when_the_parent_lets_go_and_the_name_goes(own: Client) -> None:
    import pyarrow as pa

    other = attached(own)
    other.put("t", pa.table({"b": [3 * row for row in range(ROWS)]}))
    table = other.table("t")
    child = Look(table)
    table.close()
    other.close()
    own.drop("t")
    until(lambda: len(own.stats()["sessions"]) == 1, "the session ends")
    gc.collect()
    overwrite_all_that_is_free(own)
    assert child.looks()
    child.end()
    until(lambda: own.tables() == [] and used(own) == 0, "the bytes come back when the child is gone")


def _serve(line: Any, table: Any, client: molt_accel.Client) -> None:
    for number in iter(line.recv, None):
        threads = [threading.Thread(target=client.call, args=("echo", "x" * 70_000)) for _ in range(3)]
        for thread in threads:
            thread.start()
        line.send((client.call("echo", number), is_whole(table)))
        for thread in threads:
            thread.join()


def test_prefork_workers_read_what_was_loaded_before_them(own: Client) -> None:
    """Fault 29, with multiprocessing: the master loads, forks, replaces who is killed, and lets go."""
    context = multiprocessing.get_context("fork")
    table = result(own)

    def start() -> tuple[Any, Any]:
        line, theirs = context.Pipe()
        worker = context.Process(target=_serve, args=(theirs, table, own), daemon=True)
        worker.start()
        theirs.close()
        return worker, line

    def ask_all(number: int) -> None:
        for _, line in workers:
            line.send(number)
        for _, line in workers:
            assert line.poll(60), "a worker answers"
            assert line.recv() == (number, True)

    workers = [start() for _ in range(3)]
    ask_all(1)
    killed, _ = workers.pop()
    killed.kill()
    killed.join()
    workers.append(start())
    ask_all(2)
    table.close()
    del table
    gc.collect()
    overwrite_all_that_is_free(own)
    ask_all(3)
    assert used(own) > 0
    for worker, line in workers:
        line.send(None)
        worker.join()
        assert worker.exitcode == 0
    until(lambda: used(own) == 0 and len(own.stats()["sessions"]) == 1, "what they had comes back")


SITE = """
import json, os
import molt_accel
from test_worker_forks import is_whole, result

client = molt_accel.attach(os.environ["SHM"] or None, socket=os.environ["SOCKET"] or None)
table = result(client)

def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps([os.getpid(), client.call("echo", "on"), is_whole(table)]).encode()]
"""


def _get(path: Path) -> Any:
    """One request over a Unix socket."""
    with socket.socket(socket.AF_UNIX) as stream:
        stream.settimeout(60)
        stream.connect(str(path))
        stream.sendall(b"GET / HTTP/1.0\r\n\r\n")
        answer = http.client.HTTPResponse(stream)
        answer.begin()
        assert answer.status == 200
        return json.load(answer)


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as stream:
        return stream.connect_ex(str(path)) == 0


def test_gunicorn_preloads_a_table_for_its_workers(own: Client, tmp_path: Path) -> None:
    """Fault 29, with gunicorn: `--preload`, threads in each worker, and a worker that is killed and replaced."""
    (tmp_path / "site_with_a_table.py").write_text(SITE)
    path = tmp_path / "s"
    paths = os.pathsep.join([str(tmp_path), str(Path(__file__).parent)])
    environment = {**os.environ, "PYTHONPATH": paths, "SHM": own.shm or "", "SOCKET": own.socket or ""}
    options = ["--preload", "--workers", "2", "--threads", "2", "--bind", f"unix:{path}"]
    gunicorn = subprocess.Popen(
        [sys.executable, "-m", "gunicorn", *options, "site_with_a_table:application"], env=environment, cwd=tmp_path
    )
    try:
        until(lambda: _listens(path), "it listens", 60)
        for turn in range(3):
            pid, answer, whole = _get(path)
            assert (answer, whole) == ("on", True)
            if turn < 2:
                os.kill(pid, signal.SIGKILL)
                until(lambda pid=pid: not os.path.exists(f"/proc/{pid}"), "it is gone")
    finally:
        gunicorn.terminate()
        assert gunicorn.wait(60) == 0
    until(lambda: used(own) == 0 and len(own.stats()["sessions"]) == 1, "what they had comes back")
