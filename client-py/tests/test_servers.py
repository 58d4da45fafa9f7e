"""Every server that Django people use, before a real worker: load, a restart of the worker, a client that hangs up, the
end. Each is started as its own documentation says, with several processes or threads where it has them."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import molt_accel
from conftest import until
from serving import CLIENTS, Server, Site

REQUESTS = 1000
SQL = "select count(*) as n from t a cross join t b cross join t c where a.a % 7 = (b.a + c.a) % 11"
"""Takes minutes for the 3,000 rows of site_servers.py: whoever runs it is stopped or hangs up."""
MANIFEST = {"abi_version": 1, "exports": [{"name": "slow", "kind": "sql", "sql": SQL, "input": "t"}]}


PYTHON = "{python} -m "
SERVERS = {
    "runserver": Server(PYTHON + "django runserver --noreload --settings site_servers 127.0.0.1:{port}", "wsgi"),
    "gunicorn-sync": Server(PYTHON + "gunicorn -w 2 -b 127.0.0.1:{port} site_wsgi:application", "wsgi"),
    "gunicorn-gthread": Server(PYTHON + "gunicorn -w 1 --threads 4 -b 127.0.0.1:{port} site_wsgi:application", "wsgi"),
    "gunicorn-preload": Server(PYTHON + "gunicorn -w 2 --preload -b 127.0.0.1:{port} site_wsgi:application", "wsgi"),
    "gunicorn-asgi": Server(PYTHON + "gunicorn -w 1 -k asgi -b 127.0.0.1:{port} site_asgi:application", "asgi"),
    "uvicorn": Server(PYTHON + "uvicorn --workers 2 --lifespan off --port {port} site_asgi:application", "asgi"),
    "granian-wsgi": Server(PYTHON + "granian --interface wsgi --workers 2 --port {port} site_wsgi:application", "wsgi"),
    "granian-asgi": Server(PYTHON + "granian --interface asginl --port {port} site_asgi:application", "asgi"),
    "daphne": Server(PYTHON + "daphne -p {port} site_asgi:application", "asgi"),
    "waitress": Server(
        PYTHON + "waitress --channel-request-lookahead=1 --listen=127.0.0.1:{port} site_wsgi:application", "wsgi"
    ),
}
HANG_UP_CANCELS = (
    "gunicorn-asgi",
    "uvicorn",
    "granian-asgi",
    "daphne",
    "gunicorn-sync",
    "gunicorn-gthread",
    "waitress",
)


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    path = tmp_path / "molt_exports.json"
    path.write_text(json.dumps(MANIFEST))
    return path


@pytest.fixture
def worker(manifest: Path) -> Iterator[molt_accel.SpawnedClient]:
    with molt_accel.spawn(exports=manifest, arena="32MiB", threads=2) as client:
        yield client


@pytest.mark.parametrize("name", SERVERS)
def test_it_serves_survives_a_restart_of_the_worker_and_leaves_nothing(
    name: str, worker: molt_accel.SpawnedClient, manifest: Path, tmp_path: Path
) -> None:
    site = Site(SERVERS[name], worker.shm, tmp_path / "server.log")
    try:
        assert site.ask_all(REQUESTS) == {200}, site.log.read_text()
        worker.worker.kill()
        worker.worker.wait()
        assert site.ask_all(2 * CLIENTS) <= {502, 503}
        with molt_accel.spawn(exports=manifest, arena="32MiB", shm=worker.shm) as successor:
            assert site.ask_all(10 * CLIENTS) == {200}
            assert {session["pid"] for session in successor.stats()["sessions"]} - {os.getpid()}
            site.stop()
            own = {os.getpid()}
            until(lambda: {session["pid"] for session in successor.stats()["sessions"]} == own, "its sessions are gone")
            until(lambda: successor.stats()["arena"]["used_bytes"] == 0, "its memory is given back")
    finally:
        site.kill()


@pytest.mark.parametrize("name", HANG_UP_CANCELS)
def test_who_hangs_up_stops_the_work(name: str, worker: molt_accel.SpawnedClient, tmp_path: Path) -> None:
    site = Site(SERVERS[name], worker.shm, tmp_path / "server.log")
    try:
        site.ask(1)
        browser = socket.create_connection(("127.0.0.1", site.port))
        browser.sendall(b"GET " + site.url("slow").encode() + b" HTTP/1.1\r\nHost: localhost\r\n\r\n")
        until(lambda: _in_flight(worker) == 1, f"the request runs: {site.log.read_text()}")
        began = time.monotonic()
        browser.close()
        until(lambda: worker.stats()["totals"]["cancelled"] == 1, "the worker stops it")
        took = time.monotonic() - began
        until(lambda: _in_flight(worker) == 0, "its cell is free")
        assert site.ask(1) == [200]
        assert took < 2.0, "at once, on a machine that is busy with other things"
        site.stop()
    finally:
        site.kill()


def _in_flight(client: Any) -> int:
    return sum(session["in_flight"] for session in client.stats()["sessions"])
