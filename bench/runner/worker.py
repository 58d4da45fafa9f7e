"""molt_worker under a segment name and a socket of the run's own, so that a run disturbs no other worker."""

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psutil

from . import child
from .child import Child, Command, until
from .errors import BenchError
from .owned import Owned
from .paths import DJANGO, ROOT, binary

SHM = Path("/dev/shm")
START_SECONDS = 30.0
FAREWELL_SECONDS = 10.0


@dataclass
class Worker:
    """A running worker. `shm` is the name that clients attach to."""

    shm: str
    folder: Path
    child: Child

    @property
    def pid(self) -> int:
        return self.child.pid

    def stat(self) -> dict:
        """What `molt-shm-stat NAME --json` says."""
        return stat(self.shm)

    def serving(self) -> int:
        """The process that serves: the child itself, or under a supervisor the worker of the moment."""
        return self.stat()["worker"]["pid"]


def stat(shm: str) -> dict:
    """What `molt-shm-stat NAME --json` says. Raises BenchError when it cannot read the segment."""
    shown = subprocess.run([binary("molt-shm-stat"), shm, "--json"], capture_output=True, text=True)
    if shown.returncode:
        raise BenchError(f"molt-shm-stat {shm} ended with status {shown.returncode}: {shown.stderr.strip()}")
    return json.loads(shown.stdout)


def names(shm: str) -> list[Path]:
    """The shared-memory names that belong to a segment name."""
    return sorted(SHM.glob(f"*{shm.lstrip('/')}*"))


def _ready(shm: str, pid: int) -> bool:
    if not (SHM / shm.lstrip("/")).exists():
        return False
    try:
        serving = stat(shm)["worker"]["pid"]
        return serving == pid or psutil.Process(serving).ppid() == pid  # the second: under a supervisor
    except (BenchError, psutil.NoSuchProcess):
        return False


def start(owned: Owned, log: Path, flags: Sequence[str] = (), more: Mapping[str, str] | None = None) -> Worker:
    """Starts a worker with the repository's exports and waits until clients can attach. `flags` are its own, `more` is
    further environment."""
    program = binary("molt_worker")
    folder = owned.start(
        lambda: Path(tempfile.mkdtemp(prefix="molt-bench-")), partial(shutil.rmtree, ignore_errors=True)
    )
    # mkdtemp's name is unique on this machine, so the segment's is too.
    shm = f"/{folder.name}"
    owned.start(lambda: shm, unlink)
    # As a project starts it. The command becomes the worker: process and signals are the worker's own.
    command: Command = [sys.executable, DJANGO / "manage.py", "molt_worker", "--", *flags]
    env = {"MOLT_WORKER": str(program), "MOLT_SHM": shm, "MOLT_SOCKET": str(folder / "molt.sock"), **(more or {})}
    running = child.start(owned, "molt_worker", command, log, env, cwd=ROOT)
    until(lambda: _ready(shm, running.pid), f"that {running} serves {shm}", START_SECONDS, running)
    return Worker(shm, folder, running)


def stop(owned: Owned, worker: Worker) -> list[str]:
    """Stops a worker; gives the names that it should have removed itself, and removes them."""
    owned.end(worker.child)
    left = [str(path) for path in [*names(worker.shm), *worker.folder.glob("*")]]
    owned.end(worker.shm)
    owned.end(worker.folder)
    return left


def unlink(shm: str) -> None:
    """Removes what a killed worker could not: its own clean end leaves nothing to do here."""
    for name in names(shm):
        name.unlink(missing_ok=True)


def after_clients(worker: Worker, arena_before: int) -> None:
    """Waits until the sessions of the clients that have gone are reclaimed, with every arena byte that they held.

    `arena_before` is what was in use before the first client came (resident tables). Raises BenchError otherwise.
    """

    def gone() -> bool:
        now = worker.stat()
        return not now["sessions"] and now["arena"]["used_bytes"] <= arena_before

    try:
        until(gone, "that the worker takes back what its clients held", FAREWELL_SECONDS, worker.child)
    except BenchError as reason:
        now = worker.stat()
        raise BenchError(
            f"after all clients have gone, {worker.shm} still shows {len(now['sessions'])} sessions and "
            f"{now['arena']['used_bytes']} used arena bytes ({arena_before} before they came)"
        ) from reason
