"""Admission: what waits before Django, in which order it comes in, and what those are told that do not."""

from __future__ import annotations

import asyncio
import http.client
import json
import logging
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest, HttpResponse
from django.test import override_settings
from test_django_metrics import grown, here, of
from test_servers import MANIFEST

import molt_accel
from conftest import until
from molt_accel.django import asgi, metrics
from molt_accel.django.asgi import admission
from serving import Server
from serving import Site as Served

BODY = [b"a" * 1000, b"b" * 1000, b"c"]


class Site:
    """An application that answers when it is told to, and who has asked it."""

    def __init__(self) -> None:
        self.inside: list[str] = []
        self.bodies: list[bytes] = []
        self.go_on: dict[str, asyncio.Event] = {}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        name = scope["path"]
        self.inside.append(name)
        body, more = b"", scope["type"] == "http"
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        self.bodies.append(body)
        await self.go_on.setdefault(name, asyncio.Event()).wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})

    def end(self, name: str) -> None:
        self.go_on.setdefault(name, asyncio.Event()).set()


class Browser:
    """One request, and what it has been sent."""

    def __init__(self, application: Any, path: str, chunks: list[bytes] | None = None, **scope: Any) -> None:
        self.chunks = asyncio.Queue[dict[str, Any]]()
        given = [b""] if chunks is None else chunks
        for number, chunk in enumerate(given):
            self.chunks.put_nowait({"type": "http.request", "body": chunk, "more_body": number + 1 < len(given)})
        self.answer: list[dict[str, Any]] = []
        asked = {"type": "http", "method": "POST", "path": path, "headers": [], "query_string": b"", **scope}
        self.task = asyncio.create_task(application(asked, self.chunks.get, self._send))

    async def _send(self, message: dict[str, Any]) -> None:
        self.answer.append(message)

    @property
    def status(self) -> int:
        return self.answer[0]["status"]


async def turns_until(condition: Callable[[], object]) -> None:
    """Lets the loop run until it holds."""
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0)


@pytest.fixture
def site() -> Site:
    return Site()


@pytest.fixture
def one_at_a_time() -> Iterator[dict[str, Any]]:
    """One place, and patience without end."""
    wanted = {"paths": ["/heavy/"], "in_flight": 1, "wait": 60.0}
    with override_settings(MOLT={"ADMISSION": wanted}):
        yield wanted


async def _in_line(application: Any, site: Site, monkeypatch: pytest.MonkeyPatch, seconds: float) -> list[str]:
    """Who comes in after whom, where the first may wait that long in its turn."""
    monkeypatch.setattr(asgi, "FIFO_SECONDS", seconds)
    browsers = [Browser(application, f"/heavy/{number}/") for number in range(4)]
    for browser in browsers:
        await turns_until(browser.chunks.empty)
    await turns_until(lambda: len(site.inside) == 1)
    for number in range(1, 5):
        site.end(site.inside[-1])
        await turns_until(lambda number=number: len(site.inside) == min(number + 1, 4))
    await asyncio.gather(*(browser.task for browser in browsers))
    assert [browser.status for browser in browsers] == [200] * 4
    return [name[-2] for name in site.inside]


async def test_they_come_in_their_turn(site: Site, one_at_a_time: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert await _in_line(admission(site), site, monkeypatch, 60.0) == ["0", "1", "2", "3"]


async def test_the_last_come_first_where_the_first_has_waited_long(
    site: Site, one_at_a_time: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await _in_line(admission(site), site, monkeypatch, -1.0) == ["0", "3", "2", "1"]


async def test_who_has_waited_too_long_is_refused_once_the_body_is_read(
    site: Site, one_at_a_time: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    one_at_a_time["wait"] = 0.0

    def worded(request: HttpRequest, error: Any, status: int) -> HttpResponse:
        return HttpResponse(f"{request.path}: {error.outcome}", status=status)

    wanted = {"ADMISSION": one_at_a_time, "BUSY_STATUS": 429, "ERROR_RESPONSE": worded}
    with override_settings(MOLT=wanted), caplog.at_level(logging.WARNING, "molt_accel.request"):
        application = admission(site)
        first = Browser(application, "/heavy/first/")
        await turns_until(lambda: site.inside)
        before = here()
        refused = [Browser(application, "/heavy/second/", BODY) for _ in range(3)]
        await asyncio.gather(*(browser.task for browser in refused))
        for browser in refused:
            start, body = browser.answer
            headers = dict(start["headers"])
            assert (start["status"], headers[b"retry-after"]) == (429, b"1")
            assert body["body"] == b"/heavy/second/: busy" and headers[b"content-length"] == b"20"
            assert browser.chunks.empty(), "the connection can be used again"
        counted = [of(read, "admissions_total", result=metrics.REFUSED) for read in (before, here())]
        assert counted[1] - counted[0] == 3
        assert len([one for one in caplog.records if "overload" in one.message]) == 1, "one line, not one each"
        site.end("/heavy/first/")
        await first.task
    assert site.inside == ["/heavy/first/"] and first.status == 200


async def test_other_urls_and_protocols_pass(site: Site, one_at_a_time: Any) -> None:
    application = admission(site)
    first = Browser(application, "/heavy/")
    others = [Browser(application, "/light/"), Browser(application, "/heavy/", type="websocket")]
    await turns_until(lambda: len(site.inside) == 3)
    under = Browser(application, "/site/heavy/", root_path="/site")
    await turns_until(under.chunks.empty)
    for name in ("/heavy/", "/light/"):
        site.end(name)
    await asyncio.gather(first.task, *(browser.task for browser in others))
    await turns_until(lambda: "/site/heavy/" in site.inside)
    site.end("/site/heavy/")
    await under.task


async def test_a_body_comes_through_whole_and_a_slow_one_holds_no_place(site: Site, one_at_a_time: Any) -> None:
    application = admission(site)
    slow = Browser(application, "/heavy/slow/", [])
    slow.chunks.put_nowait({"type": "http.request", "body": b"half", "more_body": True})
    await turns_until(slow.chunks.empty)
    site.end("/heavy/quick/")
    quick = Browser(application, "/heavy/quick/", BODY)
    await quick.task
    site.end("/heavy/slow/")
    slow.chunks.put_nowait({"type": "http.request", "body": b"more", "more_body": False})
    await slow.task
    assert site.bodies == [b"".join(BODY), b"halfmore"]


async def test_of_a_large_body_no_more_is_kept_than_django_would(site: Site, one_at_a_time: Any) -> None:
    with override_settings(FILE_UPLOAD_MAX_MEMORY_SIZE=1500):
        application = admission(site)
        first = Browser(application, "/heavy/first/")
        await turns_until(lambda: site.inside)
        large = Browser(application, "/heavy/large/", BODY)
        await turns_until(lambda: large.chunks.qsize() == 1)
        site.end("/heavy/first/")
        site.end("/heavy/large/")
        await asyncio.gather(first.task, large.task)
    assert site.bodies[1] == b"".join(BODY)


async def test_who_is_cancelled_with_a_place_gives_it_to_the_next(site: Site, one_at_a_time: Any) -> None:
    application = admission(site)

    async def and_cancels_the_second(*asked: Any) -> None:
        await application(*asked)
        second.task.cancel()  # it has the place by now, and has not run yet

    first = Browser(and_cancels_the_second, "/heavy/first/")
    await turns_until(lambda: site.inside)
    second = Browser(application, "/heavy/second/")
    await turns_until(second.chunks.empty)
    site.end("/heavy/first/")
    await asyncio.wait([first.task, second.task])
    assert second.task.cancelled() and site.inside == ["/heavy/first/"]
    site.end("/heavy/third/")
    async with asyncio.timeout(10):
        await Browser(application, "/heavy/third/").task


def test_it_says_which_setting_is_missing(site: Site) -> None:
    with override_settings(MOLT={}), pytest.raises(ImproperlyConfigured, match=r"hint: name the URLs .*'paths'"):
        admission(site)


def test_who_comes_in_is_counted(site: Site, one_at_a_time: Any) -> None:
    async def ask() -> None:
        application = admission(site)
        browsers = [Browser(application, "/heavy/") for _ in range(3)]
        site.end("/heavy/")
        await asyncio.gather(*(browser.task for browser in browsers))

    more = grown(here, lambda: asyncio.run(ask()))
    assert more("admissions_total", result=metrics.AT_ONCE) + more("admissions_total", result=metrics.WAITED) == 3


ONE = {"MOLT_TEST_ADMISSION": json.dumps({"paths": ["/a"], "in_flight": 1, "wait": 0.05})}
SERVERS = {
    "uvicorn": Server("{python} -m uvicorn --lifespan off --port {port} site_asgi:application", "asgi", ONE),
    "granian": Server("{python} -m granian --interface asginl --port {port} site_asgi:application", "asgi", ONE),
    "daphne": Server("{python} -m daphne -p {port} site_asgi:application", "asgi", ONE),
    "gunicorn": Server("{python} -m gunicorn -k asgi -b 127.0.0.1:{port} site_asgi:application", "asgi", ONE),
}


@pytest.mark.parametrize("name", SERVERS)
def test_a_real_server_refuses_what_finds_no_place_and_serves_again(name: str, tmp_path: Path) -> None:
    manifest = tmp_path / "molt_exports.json"
    manifest.write_text(json.dumps(MANIFEST))
    with molt_accel.spawn(exports=manifest, arena="32MiB", threads=2) as worker:
        site = Served(SERVERS[name], worker.shm, tmp_path / "server.log")
        try:
            slow = socket.create_connection(("127.0.0.1", site.port))
            slow.sendall(b"GET /aslow/ HTTP/1.1\r\nHost: localhost\r\n\r\n")
            until(lambda: any(one["in_flight"] for one in worker.stats()["sessions"]), "the only place is taken")
            browser = http.client.HTTPConnection("127.0.0.1", site.port, timeout=30)
            for body in (b"{}", b"x" * 500_000, b"x" * 5_000_000):  # one kept connection for all of them
                browser.request("POST", "/acompute/", body, {"content-type": "application/json"})
                answer = browser.getresponse()
                assert (answer.status, answer.headers["retry-after"]) == (503, "1"), site.log.read_text()
                assert json.loads(answer.read()) == {"error": "The service is busy. Try again later."}
            browser.request("GET", "/metrics/")
            text = browser.getresponse().read().decode()
            assert 'molt_client_admissions_total{result="refused"} 3.0' in text
            browser.close()
            slow.close()
            until(lambda: site.ask(1) == [200], "who hangs up gives its place back")
            assert site.log.read_text().count("overload: requests are refused") == 1
            site.stop()
        finally:
            site.kill()
