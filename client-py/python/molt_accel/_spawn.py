"""A worker of one's own: for development, tests and notebooks."""

from __future__ import annotations

import atexit
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from . import _guard
from ._find_worker import find_worker
from ._guard import STOP_SECONDS, remove_left
from .client import Client, attach
from .errors import MoltUnavailable

READY_SECONDS = 30.0
"""How long a worker may take from start to its first session."""
_LOG_TAIL_BYTES = 2000
_running: set[SpawnedClient] = set()


class SpawnedClient(Client):
    """A client whose worker was started by `spawn` and ends with `close()`."""

    worker: subprocess.Popen[bytes]
    """The worker's process."""
    log: Path
    """What the worker writes to its standard error."""

    _folder: str
    _owner: int
    _guard: subprocess.Popen[bytes] | None

    def close(self) -> None:
        """Ends the session and the worker. In a forked child only the child's session: the worker is the parent's."""
        super().close()
        if self._owner == os.getpid():
            _running.discard(self)
            _stop(self.worker)
            if self._guard is not None:
                _stop(self._guard)
            if self.shm is not None:
                remove_left(self.shm)
            shutil.rmtree(self._folder, ignore_errors=True)


def spawn(
    exports: str | os.PathLike[str] | None = None,
    arena: str | int | None = None,
    threads: int | None = None,
    *,
    shm: str | None = None,
    memfd: bool = False,
    timeout: float | None = None,
    args: Sequence[str] = (),
    ready: float = READY_SECONDS,
) -> SpawnedClient:
    """Starts `molt_worker` under a name of its own and returns a client of it, attached.

    exports, arena ("auto", "64MiB" or bytes) and threads are the worker's flags; args are further flags. shm: the
    segment's name, if not a fresh one. memfd: the segment has no name, the worker's socket hands it over. timeout: as in
    `Client`. ready: seconds that the worker has to start.
    The worker ends with the client's `close()`, at the latest with this process, even if that is killed.
    """
    binary = find_worker()
    if memfd and shm is not None:
        raise ValueError(f"memfd=True and shm={shm!r}: a segment in a memfd has no name")
    name = None if memfd else shm or f"/molt-{os.getpid()}-{secrets.token_hex(4)}"
    folder = tempfile.mkdtemp(prefix="molt-")
    log = Path(folder) / "worker.log"
    socket = str(Path(folder) / "worker.sock")
    command = [str(binary), *(["--memfd"] if name is None else ["--shm", name]), "--socket", socket]
    for flag, value in (("--exports", exports), ("--arena", arena), ("--threads", threads)):
        if value is not None:
            command += [flag, os.fspath(value) if isinstance(value, os.PathLike) else str(value)]
    with log.open("wb") as stderr:
        worker = subprocess.Popen(
            [*command, *args], stdin=subprocess.DEVNULL, stdout=stderr, stderr=stderr, start_new_session=True
        )
    client = SpawnedClient(name, socket=socket if name is None else None, timeout=timeout)
    client.worker, client.log, client._folder, client._owner = worker, log, folder, os.getpid()
    client._guard = _guarded(worker, folder, name)
    _running.add(client)
    try:
        _await_ready(client, ready)
    except BaseException:
        client.close()
        raise
    return client


def _guarded(worker: subprocess.Popen[bytes], folder: str, name: str | None) -> subprocess.Popen[bytes] | None:
    """The process that ends the worker if this one dies without a word; None where the system has no pidfds."""
    processes: list[int] = []
    try:
        processes += [os.pidfd_open(os.getpid())]
        processes += [os.pidfd_open(worker.pid)]
        return subprocess.Popen(
            [sys.executable, "-I", "-S", _guard.__file__, *map(str, processes), folder, *([name] if name else [])],
            pass_fds=processes,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError:  # an old kernel, or a sandbox that forbids it: the worker is ended by close() and at exit alone
        return None
    finally:
        for process in processes:
            os.close(process)


def _await_ready(client: SpawnedClient, seconds: float) -> None:
    """Ready is when a session with this very worker can be had; one that ends before says why in its log."""
    worker = client.worker
    end = time.monotonic() + seconds
    while True:
        try:
            attach(client.shm, 0.1, client.socket, timeout=1.0).close()
            pid = client.stats()["worker"]["pid"]
            if worker.pid in (pid, _parent(pid)):  # its child, under --supervise
                client.session()
                return
            reason = f"{client.where} belongs to another worker"
        except MoltUnavailable as unavailable:
            reason = str(unavailable)
        if worker.poll() is not None:
            raise MoltUnavailable(
                f"the worker of {client.where} ended with {worker.returncode} before it was ready:\n{_tail(client.log)}"
            )
        if time.monotonic() > end:
            raise MoltUnavailable(f"the worker of {client.where} was not ready within {seconds:g} s: {reason}")


def _parent(pid: int) -> int:
    """The parent's process id; 0 when there is no such process any more."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def _tail(log: Path) -> str:
    return log.read_bytes()[-_LOG_TAIL_BYTES:].decode("utf-8", "replace").strip()


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@atexit.register
def _stop_all() -> None:
    for client in list(_running):
        client.close()
