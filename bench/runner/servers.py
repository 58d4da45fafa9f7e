"""The web servers that Django runs under: two processes with four threads each, on a free port of the loopback."""

import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import httpx

from . import child
from .child import Child, until
from .owned import Owned
from .paths import DJANGO, PROGRAMS

HOST = "127.0.0.1"
TOKEN = "bench-token"
PROCESSES = 2
THREADS = 4
START_SECONDS = 30.0

Command = Callable[[int], list[str | Path]]


def gunicorn(port: int) -> list[str | Path]:
    """gunicorn with its threaded worker."""
    return [
        PROGRAMS / "gunicorn", "--bind", f"{HOST}:{port}", "--workers", str(PROCESSES), "--worker-class", "gthread",
        "--threads", str(THREADS), "--log-level", "warning", "demo.wsgi:application",
    ]  # fmt: skip


def granian(port: int) -> list[str | Path]:
    """granian's WSGI interface; the views are synchronous, so this is how one would serve them."""
    return [
        PROGRAMS / "granian", "--interface", "wsgi", "--host", HOST, "--port", str(port), "--workers", str(PROCESSES),
        "--blocking-threads", str(THREADS), "--http", "1", "--no-ws", "--log-level", "warning", "demo.wsgi:application",
    ]  # fmt: skip


def granian_asgi(port: int) -> list[str | Path]:
    """granian's ASGI interface, for the async views."""
    return [
        PROGRAMS / "granian", "--interface", "asginl", "--host", HOST, "--port", str(port), "--workers", str(PROCESSES),
        "--http", "1", "--no-ws", "--log-level", "warning", "demo.asgi:application",
    ]  # fmt: skip


SERVERS: dict[str, Command] = {"gunicorn": gunicorn, "granian": granian}
"""Those that every endpoint is compared under."""
ALL: dict[str, Command] = {**SERVERS, "granian-asgi": granian_asgi}


@dataclass
class Server:
    """Django under one of the servers."""

    name: str
    url: str
    child: Child

    @property
    def pid(self) -> int:
        return self.child.pid

    def client(self) -> httpx.Client:
        """An HTTP client with the server's token."""
        return httpx.Client(base_url=self.url, headers=authorization(), timeout=30, trust_env=False)


def authorization() -> dict[str, str]:
    """The header that every endpoint wants."""
    return {"Authorization": f"Bearer {TOKEN}"}


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return probe.getsockname()[1]


def start(owned: Owned, name: str, shm: str, log: Path, more: dict[str, str] | None = None) -> Server:
    """Starts a server whose Django attaches to `shm`, and waits until it answers. `more`: further environment."""
    port = free_port()
    env = {"MOLT_SHM": shm, "DEMO_API_TOKEN": TOKEN, "PYTHONDONTWRITEBYTECODE": "1", **(more or {})}
    running = child.start(owned, name, ALL[name](port), log, env, cwd=DJANGO)
    server = Server(name, f"http://{HOST}:{port}", running)
    with server.client() as client:
        until(lambda: answers(client), f"that {running} answers at {server.url}", START_SECONDS, running)
    return server


def answers(client: httpx.Client) -> bool:
    """Whether anybody answers."""
    try:
        client.get("/health/")
    except httpx.TransportError:
        return False
    return True
