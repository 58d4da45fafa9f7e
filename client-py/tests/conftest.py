"""What the tests share: Django configured without a project, workers under free names, conditions with a deadline."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import django
import pytest
import uvloop
from django.conf import settings

# A shell that runs the tests in the background has SIGINT ignored, which processes inherit.
signal.signal(signal.SIGINT, signal.default_int_handler)

settings.configure(
    SECRET_KEY="tests",
    ALLOWED_HOSTS=["*"],
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "molt_accel.django", "site_shop"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    ROOT_URLCONF="site_urls",
    USE_TZ=True,
    MOLT={"SHM": "/molt-tests-nobody"},
)
django.setup()

import molt_accel  # noqa: E402
from molt_accel.django import clients  # noqa: E402
from stub import StubBlock, StubClient  # noqa: E402


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> Mapping[str, Callable[[], Any]]:
    """Every async test runs on both loops."""
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


BARE = Path(__file__).with_name("bare_exports.json")
"""A manifest without tables: a worker that finds none looks for one in the folder where the tests are started."""
MEMFD = os.environ.get("MOLT_TEST_SEGMENT") == "memfd"
"""Whether the tests run with segments that have no name."""


def attached(other: molt_accel.Client, **given: Any) -> molt_accel.Client:
    """A further client of another's worker."""
    return molt_accel.attach(other.shm, socket=other.socket, **given)


def settings_of(other: molt_accel.Client) -> dict[str, str]:
    """The settings with which Django finds another's worker."""
    return {"SHM": other.shm} if other.shm else {"SOCKET": str(other.socket)}


@contextmanager
def successor(other: molt_accel.SpawnedClient) -> Iterator[None]:
    """A worker in the place of another's, which is gone."""
    if other.shm:
        with molt_accel.spawn(shm=other.shm, arena="16MiB"):
            yield
        return
    worker = subprocess.Popen(other.worker.args, stderr=subprocess.DEVNULL)
    try:
        attached(other, wait=20.0).close()
        yield
    finally:
        worker.terminate()
        worker.wait(20)


@pytest.fixture(scope="module")
def client() -> Iterator[molt_accel.SpawnedClient]:
    """A client of a worker that the module's tests share and leave unharmed."""
    with molt_accel.spawn(BARE, arena="32MiB", threads=2, memfd=MEMFD) as spawned:
        yield spawned


@pytest.fixture
def own() -> Iterator[molt_accel.SpawnedClient]:
    """A client of a worker that the test may stop or kill."""
    with molt_accel.spawn(BARE, arena="32MiB", threads=2, memfd=MEMFD) as spawned:
        yield spawned


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> StubClient:
    """Stands in for the process's client."""
    client = StubClient()
    monkeypatch.setattr(clients, "stand_in", client)
    StubBlock.live = 0
    return client


@pytest.fixture(autouse=True)
def _no_client_left() -> Iterator[None]:
    yield
    clients.close()


def until(condition: Callable[[], object], what: str, seconds: float = 20.0) -> None:
    """Waits for a condition, at most so long."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.005)


def stop(pid: int) -> None:
    """Stops a process, and waits until each of its threads stands still: kill() returns before they have."""
    os.kill(pid, signal.SIGSTOP)

    def stopped(task: str) -> bool:
        with open(f"/proc/{pid}/task/{task}/stat") as stat:
            return stat.read().rpartition(") ")[2].startswith("T")  # the name in parentheses may hold anything

    until(lambda: all(map(stopped, os.listdir(f"/proc/{pid}/task"))), f"all threads of {pid} stand still")


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """A process stands still meanwhile."""
    stop(pid)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@contextmanager
def being_started(client: molt_accel.SpawnedClient) -> Iterator[None]:
    """The worker is dead, and its supervisor, which stands still, is known to start the next one."""
    pid = client.stats()["worker"]["pid"]
    with stopped(client.worker.pid):
        os.kill(pid, signal.SIGKILL)
        until(lambda: client.stats()["worker"]["state"] != "serving", "it is dead")
        yield


def in_child(check: Callable[[], None]) -> int:
    """Runs `check` in a forked child; the child's exit status is 0 when it passed."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            check()
            status = 0
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
