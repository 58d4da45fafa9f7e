"""Django in front of a real worker: bodies, codecs, outcomes, restarts."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from threading import Event, Thread
from typing import Any

import msgpack
import pytest
from django.test import AsyncClient, Client, override_settings

import molt_accel
from conftest import BARE, MEMFD, in_child, settings_of, stop, successor, until
from molt_accel.django import client as process_client

NUMBERS = {"values": [1, 2, 3], "scale": 2, "offset": 0}
RESULT = {"count": 3, "sum": 6, "scaled": [2, 4, 6]}


@pytest.fixture
def site(client: molt_accel.SpawnedClient) -> Iterator[Client]:
    """Django's test client before the module's worker."""
    with override_settings(MOLT=settings_of(client)):
        yield Client()


@pytest.mark.parametrize("url", ["/compute/", "/acompute/"])
def test_json_and_msgpack_in_and_out(site: Client, url: str) -> None:
    assert site.post(url, NUMBERS, content_type="application/json").json() == RESULT
    packed = site.generic(
        "POST", url, msgpack.packb(NUMBERS), "application/msgpack", headers={"accept": "application/msgpack"}
    )
    assert packed.headers["Content-Type"] == "application/msgpack" and msgpack.unpackb(packed.content) == RESULT
    assert packed.molt.exec_us >= 0


async def test_async_all_the_way(client: molt_accel.SpawnedClient) -> None:
    with override_settings(MOLT=settings_of(client)):
        site = AsyncClient()
        response = await site.post("/acompute/", NUMBERS, content_type="application/json")
        assert response.json() == RESULT
        assert (await site.get("/ainside/")).json() == {"sum": 3, "scaled": [1, 2]}


@pytest.mark.parametrize("size", [0, 1, 4096, 4097, 300_000, 6 * 2**20])
def test_bodies_of_any_size_arrive_untouched(site: Client, size: int) -> None:
    data = os.urandom(size)
    response = site.generic("POST", "/echo/", data, "application/octet-stream")
    assert response.content == data and response.headers["Content-Type"] == "application/octet-stream"


def test_query_and_url_arguments_are_the_payload_without_a_body(site: Client) -> None:
    assert site.get("/arguments/7/?a=x&b=1&b=2").json() == {"pk": 7, "a": "x", "b": ["1", "2"]}


def test_offload_inside_a_view_comes_after_its_checks(site: Client) -> None:
    assert site.post("/inside/", NUMBERS, content_type="application/json").status_code == 401
    response = site.post("/inside/", NUMBERS, content_type="application/json", headers={"x-scale": "10"})
    assert response.json() == {"sum": 6, "scaled": [10, 20, 30]}


@pytest.mark.parametrize(
    ("url", "body", "settings", "status"),
    [
        ("/compute/", b"{", {}, 400),
        ("/compute/", b'{"values": ["x"]}', {}, 400),
        ("/echo/", b"x" * 2000, {"MAX_BODY": 1000}, 413),
        ("/compute/", b"{}", {"SHM": "/molt-tests-nobody"}, 503),
    ],
)
def test_outcomes_are_statuses(site: Client, client: Any, url: str, body: bytes, settings: Any, status: int) -> None:
    with override_settings(MOLT={**settings_of(client), **settings}):
        response = site.generic("POST", url, body, "application/json")
    assert response.status_code == status and response.json()["error"]
    assert b"/molt" not in response.content


def test_the_fallback_runs_without_a_worker_and_finds_the_body(site: Client) -> None:
    assert site.post("/careful/", [1], content_type="application/json").content == b"[1]"
    with override_settings(MOLT={"SHM": "/molt-tests-nobody"}):
        for body in (b"[1]", b"y" * 10_000):
            response = site.generic("POST", "/careful/", body, "application/json")
            assert response.content == b"own code: " + body


def test_a_killed_worker_is_502_or_503_and_200_again_once_it_is_back(own: molt_accel.SpawnedClient) -> None:
    with override_settings(MOLT=settings_of(own)):
        site = Client()
        assert site.post("/compute/", NUMBERS, content_type="application/json").status_code == 200
        own.worker.kill()
        own.worker.wait()
        for _ in range(3):
            assert site.post("/compute/", NUMBERS, content_type="application/json").status_code in (502, 503)
        with successor(own):
            assert site.post("/compute/", NUMBERS, content_type="application/json").json() == RESULT


def test_a_full_worker_is_a_503_that_says_when_to_come_back_and_no_fallback() -> None:
    with molt_accel.spawn(BARE, arena="16MiB", threads=1, args=["--queue", "1"], memfd=MEMFD) as own:
        with override_settings(MOLT={**settings_of(own), "TIMEOUT": 60.0}):
            assert Client().post("/careful/", [1], content_type="application/json").content == b"[1]"
            answers: list[Any] = []
            over = Event()

            def ask() -> None:
                site = Client()
                while not over.is_set():
                    answers.append(site.post("/careful/", list(range(20_000)), content_type="application/json"))

            threads = [Thread(target=ask) for _ in range(6)]
            for thread in threads:
                thread.start()
            try:
                until(lambda: any(answer.status_code != 200 for answer in answers), "one finds the queue full", 60)
            finally:
                over.set()
                for thread in threads:
                    thread.join()
        busy = [answer for answer in answers if answer.status_code != 200]
        assert {(answer.status_code, answer.headers["Retry-After"]) for answer in busy} == {(503, "1")}
        assert all("busy" in answer.json()["error"] for answer in busy)
        assert not any(answer.content.startswith(b"own code") for answer in answers)


def test_a_stopped_worker_is_a_504(own: molt_accel.SpawnedClient) -> None:
    with override_settings(MOLT={**settings_of(own), "TIMEOUT": 0.3}):
        site = Client()
        assert site.post("/compute/", NUMBERS, content_type="application/json").status_code == 200
        stop(own.worker.pid)
        try:
            assert site.post("/compute/", NUMBERS, content_type="application/json").status_code == 504
        finally:
            os.kill(own.worker.pid, signal.SIGCONT)


async def test_a_stopped_worker_is_a_504_of_an_async_view_and_the_loop_goes_on(own: molt_accel.SpawnedClient) -> None:
    with override_settings(MOLT={"SHM": own.shm, "SOCKET": own.socket, "TIMEOUT": 0.3}):
        site, turns = AsyncClient(), 0

        async def others() -> None:
            nonlocal turns
            while True:
                await asyncio.sleep(0.01)
                turns += 1

        assert (await site.post("/acompute/", NUMBERS, content_type="application/json")).json() == RESULT
        beside = asyncio.create_task(others())
        stop(own.worker.pid)
        try:
            began = time.monotonic()
            asked = [site.post("/acompute/", NUMBERS, content_type="application/json") for _ in range(20)]
            statuses = [answer.status_code for answer in await asyncio.gather(*asked)]
            took = time.monotonic() - began
        finally:
            os.kill(own.worker.pid, signal.SIGCONT)
        beside.cancel()
        assert set(statuses) == {504} and took < 3, (statuses, took)
        assert turns >= 5, "whoever else runs in the loop is served meanwhile"
        answers = [(await site.post("/acompute/", NUMBERS, content_type="application/json")).status_code]
        assert answers == [200], "the same session serves again"


def test_a_worker_that_hangs_does_not_take_the_site_along(own: molt_accel.SpawnedClient) -> None:
    with override_settings(MOLT={**settings_of(own), "TIMEOUT": 3.0}):
        site = Client()
        assert site.post("/careful/", [1], content_type="application/json").content == b"[1]"
        stop(own.worker.pid)
        try:
            assert site.post("/careful/", [1], content_type="application/json").status_code == 504
            began = time.monotonic()
            for _ in range(20):  # the first one found out; nobody after it waits
                assert site.post("/careful/", [1], content_type="application/json").content == b"own code: [1]"
                assert site.post("/compute/", NUMBERS, content_type="application/json").status_code == 503
            assert time.monotonic() - began < 20
        finally:
            os.kill(own.worker.pid, signal.SIGCONT)
        until(lambda: site.post("/careful/", [1], content_type="application/json").content == b"[1]", "it heals")


def test_a_preforking_server_gives_every_process_its_session(site: Client, client: Any) -> None:
    assert site.post("/compute/", NUMBERS, content_type="application/json").json() == RESULT

    def check() -> None:
        assert site.post("/compute/", NUMBERS, content_type="application/json").json() == RESULT
        assert os.getpid() in [session["pid"] for session in client.stats()["sessions"]]

    assert [in_child(check) for _ in range(3)] == [0, 0, 0]
    assert process_client().call("echo", 1) == 1
