"""A worker of one's own: for development, tests and notebooks."""

from __future__ import annotations

import atexit
import fcntl
import os
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from ._find_worker import find_worker
from .client import Client, attach
from .errors import MoltUnavailable

READY_SECONDS = 30.0
"""How long a worker may take from start to its first session."""
STOP_SECONDS = 5.0
"""How long it may take to end after SIGTERM; then it is killed."""

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

    def close(self) -> None:
        """Ends the session and the worker. In a forked child only the child's session: the worker is the parent's."""
        super().close()
        if self._owner == os.getpid():
            _running.discard(self)
            _stop(self.worker)
            if self.shm is not None:
                _remove_left(self.shm)
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
    The worker ends with the client's `close()`, at the latest with this process.
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
    _running.add(client)
    try:
        _await_ready(client, ready)
    except BaseException:
        client.close()
        raise
    return client


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


def _remove_left(name: str) -> None:
    """Removes the segment of a worker that was killed. A live worker holds the lock of its segment, as spec/ says."""
    path = Path("/dev/shm", name.lstrip("/"))
    try:
        with path.open("r+b") as segment:
            # A record lock: it and the worker's lock (of its open file) exclude each other; a flock would not.
            fcntl.lockf(segment, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.stat().st_ino == os.fstat(segment.fileno()).st_ino:
                path.unlink()
    except (FileNotFoundError, BlockingIOError, PermissionError):
        pass


def _stop(worker: subprocess.Popen[bytes]) -> None:
    if worker.poll() is None:
        worker.terminate()
        try:
            worker.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            worker.kill()
            worker.wait()


@atexit.register
def _stop_all() -> None:
    for client in list(_running):
        client.close()
