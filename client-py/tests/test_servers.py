"""Every server that Django people use, before a real worker: load, a restart of the worker, a client that hangs up, the
end. Each is started as its own documentation says, with several processes or threads where it has them."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import molt_accel
from conftest import stop, until
from serving import CLIENTS, Server, Site

REQUESTS = 1000
THREADS = 2
"""Of the worker."""
STOPPED_WITHIN = {"asgi": 0.05, "wsgi": 0.15}
"""Seconds from a hang-up to the end of the work: a server tells an async view at once, a sync view looks ten times a
second. The best of `TRIES`: the machine may be busy with other things."""
TRIES = 12
LOOK_SECONDS = 0.1
"""Between two looks of a sync view."""
SQL = "select count(*) as n from t a cross join t b cross join t c where a.a % 7 = (b.a + c.a) % 11"
"""Takes minutes for the 3,000 rows of site_servers.py: whoever runs it is stopped or hangs up."""
MANIFEST = {"abi_version": 1, "exports": [{"name": "slow", "kind": "sql", "sql": SQL, "input": "t"}]}


PYTHON = "{python} -m "
SERVERS = {
    "runserver": Server(PYTHON + "django runserver --noreload --settings site_servers 127.0.0.1:{port}", "wsgi"),
    "gunicorn-sync": Server(PYTHON + "gunicorn -w 2 -b 127.0.0.1:{port} site_wsgi:application", "wsgi"),
    "gunicorn-gthread": Server(PYTHON + "gunicorn -w 1 --threads 4 -b 127.0.0.1:{port} site_wsgi:application", "wsgi"),
    # Both begin with a session of the process that forks the others.
    "gunicorn-preload": Server(
        PYTHON + "gunicorn -w 2 --preload -b 127.0.0.1:{port} site_wsgi:application", "wsgi", {"MOLT_TEST_EARLY": "1"}
    ),
    "gunicorn-gthread-preload": Server(
        PYTHON + "gunicorn -w 2 --threads 4 --preload -b 127.0.0.1:{port} site_wsgi:application",
        "wsgi",
        {"MOLT_TEST_EARLY": "1"},
    ),
    "gunicorn-asgi": Server(PYTHON + "gunicorn -w 2 -k asgi -b 127.0.0.1:{port} site_asgi:application", "asgi"),
    "uvicorn": Server(PYTHON + "uvicorn --workers 2 --lifespan off --port {port} site_asgi:application", "asgi"),
    "granian-wsgi": Server(PYTHON + "granian --interface wsgi --workers 2 --port {port} site_wsgi:application", "wsgi"),
    "granian-asgi": Server(
        PYTHON + "granian --interface asginl --workers 2 --port {port} site_asgi:application", "asgi"
    ),
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
    with molt_accel.spawn(exports=manifest, arena="32MiB", threads=THREADS) as client:
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


@pytest.mark.parametrize("name", ["gunicorn-preload", "gunicorn-gthread-preload"])
def test_children_of_a_process_with_a_client_have_sessions_of_their_own(
    name: str, worker: molt_accel.SpawnedClient, tmp_path: Path
) -> None:
    site = Site(SERVERS[name], worker.shm, tmp_path / "server.log")
    try:
        until(lambda: site.process.pid in _pids(worker), "the process that forks has one")
        assert site.ask_all(10 * CLIENTS) == {200}
        assert _pids(worker) - {os.getpid(), site.process.pid}, "and so has one that serves"
        site.stop()
    finally:
        site.kill()


@pytest.mark.parametrize("name", HANG_UP_CANCELS)
def test_who_hangs_up_stops_the_work(name: str, worker: molt_accel.SpawnedClient, tmp_path: Path) -> None:
    site = Site(SERVERS[name], worker.shm, tmp_path / "server.log")
    try:
        site.ask(1)
        used = worker.stats()["arena"]["used_bytes"]
        took = [_hung_up(site, worker) for _ in range(THREADS + 1)]
        longest = STOPPED_WITHIN[site.kind]
        while min(took) > longest and len(took) < TRIES:
            took.append(_hung_up(site, worker))
        assert min(took) <= longest, took
        assert max(took) < 5.0, "at once, on a machine that is busy with other things"
        # Each of them would hold a thread else, and there are fewer threads than there were hang-ups.
        assert worker.call("slow", [{"a": 1}], codec="json", timeout=20.0) == [{"n": 0}]
        # A process without an event loop notices at its next call what the worker has let go of.
        until(
            lambda: site.ask(1) == [200] and worker.stats()["arena"]["used_bytes"] <= used, "the bodies are given back"
        )
        site.stop()
    finally:
        site.kill()


def _hung_up(site: Site, worker: molt_accel.SpawnedClient) -> float:
    """Has the slow request run, hangs up, and returns how long it took the worker to stop."""
    before = worker.stats()["totals"]["cancelled"]
    browser = socket.create_connection(("127.0.0.1", site.port))
    browser.sendall(_request(site, "slow"))
    until(lambda: _in_flight(worker) == 1, f"the request runs: {site.log.read_text()}")
    began = time.monotonic()
    browser.close()
    until(lambda: worker.stats()["totals"]["cancelled"] == before + 1, "the worker stops it")
    took = time.monotonic() - began
    until(lambda: _in_flight(worker) == 0, "its cell is free")
    return took


@pytest.mark.parametrize("name", ["gunicorn-sync", "gunicorn-gthread"])
@pytest.mark.parametrize("setting", ["on", "off"])
def test_a_client_that_closes_its_sending_side_is_answered_where_the_setting_says_so(
    name: str, setting: str, own: molt_accel.SpawnedClient, tmp_path: Path
) -> None:
    server = SERVERS[name]
    if setting == "off":
        server = server._replace(environment={"MOLT_TEST_HALF_CLOSED": "1"})
    site = Site(server, own.shm, tmp_path / "server.log")
    try:
        assert site.ask(1) == [200]
        stop(own.worker.pid)
        with socket.create_connection(("127.0.0.1", site.port), timeout=30) as browser:
            browser.sendall(_request(site, "careful"))
            browser.shutdown(socket.SHUT_WR)
            if setting == "on":
                assert browser.recv(100).startswith(b"HTTP/1.1 499"), site.log.read_text()
            else:
                browser.settimeout(5 * LOOK_SECONDS)
                with pytest.raises(TimeoutError):  # nobody has looked whether it hung up
                    browser.recv(100)
                os.kill(own.worker.pid, signal.SIGCONT)
                browser.settimeout(30)
                assert browser.recv(100).startswith(b"HTTP/1.1 400"), "the entry's own answer: the body is none"
        os.kill(own.worker.pid, signal.SIGCONT)
        site.stop()
    finally:
        os.kill(own.worker.pid, signal.SIGCONT)
        site.kill()


def _request(site: Site, view: str) -> bytes:
    return b"GET " + site.url(view).encode() + b" HTTP/1.1\r\nHost: localhost\r\n\r\n"


def _pids(client: molt_accel.Client) -> set[int]:
    return {session["pid"] for session in client.stats()["sessions"]}


def _in_flight(client: Any) -> int:
    return sum(session["in_flight"] for session in client.stats()["sessions"])
