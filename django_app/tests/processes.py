"""The real processes of these tests, a worker and web servers, each on a leash that outlives nobody."""

import itertools
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

import httpx
import molt_accel

from tests.waiting import until

PROJECT = Path(__file__).resolve().parents[1]
ROOT = PROJECT.parent
TOKEN = {"Authorization": "Bearer demo-token"}
BINARIES = ROOT / "target" / "release"

_numbers = itertools.count()


def binary(name: str, variable: str) -> str:
    """The path of one of molt's executables: what the environment variable says, else the release build."""
    path = Path(os.environ.get(variable, BINARIES / name))
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing; hint: run `make build`, or set {variable} to the executable")
    return str(path)


class Held:
    """A command on its leash: it ends with this object's `with`, or when this process dies, however that happens."""

    def __init__(self, command: list[str], log: Path, unlink: str | None = None, **environment: str) -> None:
        leash = [sys.executable, str(PROJECT / "tests" / "leash.py"), *(["--unlink", unlink] if unlink else [])]
        self.log = log
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [*leash, *command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                env={**os.environ, **environment},
                start_new_session=True,  # Ctrl-C reaches the tests alone, which then end the leash in good order
            )
        self.pid = int(self.process.stdout.readline())

    @property
    def running(self) -> bool:
        """Whether the command itself, not its leash, is still there."""
        return self.process.poll() is None

    def kill(self) -> None:
        """kill -9 of the command, as the out-of-memory killer would; returns when it is gone."""
        os.kill(self.pid, signal.SIGKILL)
        self.process.wait(30)
        self.stop()

    def stop(self) -> None:
        """Lets go of the leash, which stops the command politely and then for good; returns when it is gone."""
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait(30)

    def said(self) -> str:
        """What the command has written so far."""
        return self.log.read_text(errors="replace")


class Worker:
    """`manage.py molt_worker`, under a segment name of its own, for tests that kill it and start it again."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.shm = f"/molt-django-{os.getpid()}-{next(_numbers):03}"
        self.folder = folder
        self.options = options
        self.held: Held | None = None

    def start(self) -> Self:
        """Starts it and waits until it answers."""
        self.held = Held(
            [sys.executable, str(ROOT / "manage.py"), "molt_worker", "--", *self.options],
            self.folder / "worker.log",
            unlink=self.shm,
            MOLT_SHM=self.shm,
            MOLT_SOCKET=str(self.folder / "molt.sock"),
        )
        until(self._answers, "the worker answers")
        return self

    def _answers(self) -> bool:
        if not self.held.running:
            raise AssertionError(f"molt_worker ended at start:\n{self.held.said()}")
        try:
            with molt_accel.attach(shm=self.shm) as client:
                client.ping()
        except molt_accel.MoltUnavailable:
            return False
        return True

    def stat(self) -> dict[str, Any]:
        """What molt-shm-stat tells about this worker's segment."""
        done = subprocess.run(
            [binary("molt-shm-stat", "MOLT_SHM_STAT"), self.shm, "--json"], capture_output=True, text=True, check=True
        )
        return json.loads(done.stdout)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *reason: object) -> None:
        self.held.stop()


class Server:
    """The demo under a real web server on a free loopback port."""

    def __init__(self, command: list[str], folder: Path, shm: str) -> None:
        self.port = _free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.held = Held([part.format(port=self.port) for part in command], folder / "server.log", MOLT_SHM=shm)
        self.client = httpx.Client(base_url=self.url, headers=TOKEN, timeout=30)

    def _answers(self) -> bool:
        if not self.held.running:
            raise AssertionError(f"the web server ended at start:\n{self.held.said()}")
        try:
            return self.client.get("/health/").status_code == 200
        except httpx.TransportError:
            return False

    def __enter__(self) -> Self:
        until(self._answers, "the web server answers")
        return self

    def __exit__(self, *reason: object) -> None:
        self.client.close()
        self.held.stop()


GUNICORN = [sys.executable, "-m", "gunicorn", "--chdir", str(PROJECT), "--bind", "127.0.0.1:{port}"]
GUNICORN += ["--worker-class", "gthread", "--workers", "2", "--threads", "4", "demo.wsgi"]
GRANIAN = [sys.executable, "-m", "granian", "--working-dir", str(PROJECT), "--host", "127.0.0.1", "--port", "{port}"]
GRANIAN += ["--workers", "2", "--no-ws", "--workers-kill-timeout", "3"]
GRANIAN_WSGI = [*GRANIAN, "--interface", "wsgi", "--blocking-threads", "4", "demo.wsgi:application"]
GRANIAN_ASGI = [*GRANIAN, "--interface", "asgi", "demo.asgi:application"]

RUNSERVER = [sys.executable, str(ROOT / "manage.py"), "runserver", "{port}"]

SERVERS = {"gunicorn": GUNICORN, "granian": GRANIAN_WSGI, "granian-asgi": GRANIAN_ASGI}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
