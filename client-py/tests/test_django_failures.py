"""Other outcomes as HTTP: status, words, headers, log; and when the view's own code runs instead."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from django.core.exceptions import RequestDataTooBig
from django.http import HttpRequest, HttpResponse
from django.http.request import RawPostDataException
from django.test import AsyncRequestFactory, RequestFactory, override_settings
from prometheus_client import REGISTRY

from molt_accel import testing
from molt_accel.django import aoffload, clients, molt_offload, offload, signals
from molt_accel.errors import (
    MoltBusy,
    MoltError,
    MoltInternalError,
    MoltInvalidInput,
    MoltTimeout,
    MoltUnavailable,
    MoltUnknownEntry,
    MoltWorkerLost,
)
from stub import StubBlock, StubClient

factory = RequestFactory()
SECRET = "at /srv/app/worker.rs:12, hint: molt_worker --shm /molt0"


def post(body: bytes = b"{}") -> HttpRequest:
    return factory.post("/x/", body, "application/json")


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (MoltUnknownEntry(SECRET), 500, "not available"),
        (MoltBusy(SECRET, retry_after=1.0), 503, "busy"),
        (MoltTimeout(SECRET), 504, "in time"),
        (MoltUnavailable(SECRET), 503, "unavailable"),
        (MoltWorkerLost(SECRET), 502, "failed while"),
        (MoltInternalError(SECRET), 500, "failed to handle"),
    ],
)
def test_nothing_of_the_inside_reaches_the_client_and_everything_the_log(
    stub: StubClient,
    caplog: pytest.LogCaptureFixture,
    error: MoltError,
    status: int,
    words: str,
) -> None:
    stub.answer = error
    with caplog.at_level(logging.INFO, "molt_accel.request"):
        response = offload(post(), entry="e")
    assert response.status_code == status
    assert list(json.loads(response.content)) == ["error"] and words in json.loads(response.content)["error"]
    assert b"srv" not in response.content and b"hint" not in response.content
    (record,) = caplog.records
    assert SECRET in record.getMessage() and "POST /x/" in record.getMessage() and record.outcome == error.outcome


@pytest.mark.parametrize("fallback", [False, True])
def test_neither_a_path_nor_a_message_begins_a_line_of_the_log(
    stub: StubClient, caplog: pytest.LogCaptureFixture, fallback: bool
) -> None:
    @molt_offload(entry="e", fallback=fallback)
    def view(request: HttpRequest) -> HttpResponse:
        return HttpResponse()

    stub.answer = MoltUnavailable("no 'a\r\nb', grüße\x1b[2J")
    with caplog.at_level(logging.INFO, "molt_accel.request"):
        view(factory.post("/x/a%0AERROR%20forged/%E2%80%A8%C3%BC", b"{}", "application/json"))
    (record,) = caplog.records
    line = record.getMessage()
    assert line.isprintable() and "POST /x/a\\nERROR forged/\\u2028ü: " in line
    assert "no 'a\\r\\nb', grüße\\x1b[2J" in line


def test_invalid_input_tells_the_client_what_and_where(stub: StubClient) -> None:
    stub.answer = MoltInvalidInput("qty must be 1..10000", details={"index": 3, "field": "qty"})
    response = offload(post(), entry="e")
    assert response.status_code == 400
    assert json.loads(response.content) == {"error": "qty must be 1..10000", "index": 3, "field": "qty"}
    stub.answer = MoltInvalidInput("no such order", status=404)
    assert offload(post(), entry="e").status_code == 404


class Secret:
    """A model, say."""


@pytest.mark.parametrize(
    ("options", "place"),
    [
        ({"params": lambda request: {"user": Secret()}}, "params['user']"),
        ({"payload": {"user": Secret()}}, "payload['user']"),
        ({"payload": {"user": Secret()}, "codec": "msgpack"}, "payload['user']"),
        ({"payload": {}, "codec": "raw"}, "codec 'raw' takes bytes"),
    ],
)
@pytest.mark.parametrize("way", ["sync", "async"])
async def test_what_this_project_cannot_encode_is_no_fault_of_the_client(
    caplog: pytest.LogCaptureFixture, options: Any, place: str, way: str
) -> None:
    with testing.fake({"e": lambda payload, params: 1}), caplog.at_level(logging.INFO, "molt_accel.request"):
        if way == "sync":
            response = offload(post(), entry="e", **options)
        else:
            response = await aoffload(
                AsyncRequestFactory().post("/x/", b"{}", "application/json"), entry="e", **options
            )
    assert response.status_code == 500
    assert json.loads(response.content) == {"error": "The service failed to handle the request."}
    (record,) = caplog.records
    assert record.levelno == logging.ERROR and place in record.getMessage() and record.outcome == "internal"


def test_what_the_entry_refuses_stays_the_clients(stub: StubClient) -> None:
    stub.answer = MoltInvalidInput("no such tenant")
    assert offload(post(), entry="e", params={"user": 7}).status_code == 400


@pytest.mark.parametrize(("after", "header"), [(0.2, "1"), (1.0, "1"), (2.5, "3")])
def test_busy_says_when_to_come_back_in_whole_seconds(stub: StubClient, after: float, header: str) -> None:
    stub.answer = MoltBusy("full", retry_after=after)
    assert offload(post(), entry="e").headers["Retry-After"] == header
    with override_settings(MOLT={"BUSY_STATUS": 429}):
        assert offload(post(), entry="e").status_code == 429


def shaped(request: HttpRequest, error: MoltError, status: int) -> HttpResponse:
    return HttpResponse(f"{request.path} {error.outcome} {status}", status=status)


@pytest.mark.parametrize("given", [shaped, "test_django_failures.shaped"])
def test_a_project_may_word_its_errors_itself(stub: StubClient, given: Any) -> None:
    stub.answer = MoltBusy("full", retry_after=1.0)
    with override_settings(MOLT={"ERROR_RESPONSE": given}):
        response = offload(post(), entry="e")
    assert (response.content, response.headers["Retry-After"]) == (b"/x/ busy 503", "1")


# -- fallback -------------------------------------------------------------------------------------------------------


def decorated(**options: Any) -> Any:
    @molt_offload(entry="e", fallback=True, **options)
    def view(request: HttpRequest, **kwargs: Any) -> HttpResponse:
        return HttpResponse(b"own code: " + request.body[:8])

    return view


LOST_IDEMPOTENT = MoltWorkerLost("gone", details={"idempotent": True})


@pytest.mark.parametrize(
    ("error", "options", "falls_back"),
    [
        (MoltUnavailable("nobody"), {}, True),
        (MoltWorkerLost("gone"), {}, False),
        (MoltWorkerLost("gone"), {"idempotent": True}, True),
        (LOST_IDEMPOTENT, {}, True),
        (LOST_IDEMPOTENT, {"idempotent": False}, False),
        (MoltBusy("full"), {"idempotent": True}, False),
        (MoltTimeout("late"), {"idempotent": True}, False),
        (MoltInternalError("broken"), {"idempotent": True}, False),
        (MoltInvalidInput("bad"), {"idempotent": True}, False),
    ],
)
@pytest.mark.parametrize("size", [8, 5000])
def test_the_view_runs_instead_only_where_that_is_safe_and_finds_its_body(
    stub: StubClient,
    caplog: pytest.LogCaptureFixture,
    error: MoltError,
    options: Any,
    falls_back: bool,
    size: int,
) -> None:
    stub.answer = error
    request = post(b"12345678" * (size // 8))
    response = decorated(**options)(request)
    assert StubBlock.live == 0
    if falls_back:
        assert response.content == b"own code: 12345678" and len(request.body) == size
        assert request.read(3) == b"123"
        (record,) = caplog.records
        assert record.levelno == logging.WARNING and "the view runs instead" in record.getMessage()
    else:
        assert response.status_code == error.http_status


def test_no_worker_is_noticed_before_the_body_is_read(stub: StubClient) -> None:
    stub.session_error = MoltUnavailable("nobody")
    request = post(b"12345678")
    assert decorated()(request).content == b"own code: 12345678"


@pytest.mark.parametrize("gone", ["before", "during"])
def test_the_views_own_code_takes_as_large_a_body_as_the_worker(stub: StubClient, gone: str) -> None:
    if gone == "before":
        stub.session_error = MoltUnavailable("nobody")
    else:
        stub.answer = MoltUnavailable("nobody")
    with override_settings(DATA_UPLOAD_MAX_MEMORY_SIZE=1000, MOLT={"MAX_BODY": 5000}):
        request = post(b"12345678" * 625)
        assert decorated()(request).content == b"own code: 12345678" and len(request.body) == 5000
        assert request.read(3) == b"123" and type(request).__name__ == "WSGIRequest"
    with override_settings(DATA_UPLOAD_MAX_MEMORY_SIZE=1000, MOLT={"MAX_BODY": 4000}):
        if gone == "before":
            with pytest.raises(RequestDataTooBig):  # over both
                decorated()(post(b"12345678" * 625))


def test_the_views_own_code_may_stream_a_large_body_all_the_same(stub: StubClient) -> None:
    @molt_offload(entry="e", fallback=True)
    def view(request: HttpRequest) -> HttpResponse:
        first = request.read(3)
        with pytest.raises(RawPostDataException):
            _ = request.body
        return HttpResponse(first)

    stub.session_error = MoltUnavailable("nobody")
    with override_settings(DATA_UPLOAD_MAX_MEMORY_SIZE=1000):
        assert view(post(b"12345678" * 625)).content == b"123"


@pytest.mark.parametrize("error", [MoltUnavailable("nobody"), MoltBusy("full")])
def test_a_body_that_was_not_needed_is_read_all_the_same(stub: StubClient, error: MoltError) -> None:
    """Else the server closes the connection, and the client's next request on it fails."""
    stub.session_error = error
    request = post(b"x" * 100_000)
    assert offload(request, entry="e").status_code == 503
    assert request.read() == b"" and request._read_started


def test_without_fallback_the_view_never_runs(stub: StubClient) -> None:
    @molt_offload(entry="e")
    def view(request: HttpRequest) -> HttpResponse:
        raise AssertionError("ran")

    stub.answer = MoltUnavailable("nobody")
    assert view(post()).status_code == 503


async def test_async_views_fall_back_too(stub: StubClient) -> None:
    @molt_offload(entry="e", fallback=True)
    async def view(request: HttpRequest) -> HttpResponse:
        return HttpResponse(request.body)

    stub.answer = MoltUnavailable("nobody")
    request = AsyncRequestFactory().post("/", b"y" * 5000, "application/json")
    assert (await view(request)).content == b"y" * 5000
    stub.answer = MoltBusy("full")
    assert (await view(AsyncRequestFactory().post("/", b"{}", "application/json"))).status_code == 503


# -- an HTTP client that hangs up under ASGI: the server cancels the view ---------------------------------------------


@pytest.mark.parametrize("way", ["decorator", "aoffload"])
async def test_a_cancelled_view_is_counted_logged_and_told_of(
    stub: StubClient, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    waits = asyncio.Event()

    async def wait(*args: Any) -> Any:
        waits.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(stub, "aexchange", wait, raising=False)
    seen: list[tuple[str, int]] = []

    def failed(sender: str, error: MoltError, status: int, **given: Any) -> None:
        seen.append((error.outcome, status))

    counted = REGISTRY.get_sample_value("molt_client_requests_total", {"entry": "e", "outcome": "cancelled"}) or 0
    signals.request_failed.connect(failed)
    try:
        asked = AsyncRequestFactory().post("/x/", b"{}", "application/json")
        view = views()[1](asked) if way == "decorator" else aoffload(asked, entry="e")
        task = asyncio.create_task(view)
        await waits.wait()
        with caplog.at_level(logging.INFO, "molt_accel.request"):
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
    finally:
        signals.request_failed.disconnect(failed)
    assert seen == [("cancelled", 499)]
    (record,) = caplog.records
    assert record.levelno == logging.INFO and "POST /x/: e cancelled: the view was cancelled" in record.getMessage()
    now = REGISTRY.get_sample_value("molt_client_requests_total", {"entry": "e", "outcome": "cancelled"})
    assert now == counted + 1


# -- signals ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def receivers() -> Iterator[list[tuple[str, Any]]]:
    """What an async and a sync receiver of every signal were told, and one that raises beside them."""
    told: list[tuple[str, Any]] = []

    async def hear(sender: Any, signal: Any, **given: Any) -> None:
        await asyncio.sleep(0)
        told.append(("async", sender))

    def hear_too(sender: Any, signal: Any, **given: Any) -> None:
        told.append(("sync", sender))

    def fail(sender: Any, signal: Any, **given: Any) -> None:
        raise RuntimeError("a receiver's own")

    every = signals.request_failed, signals.fell_back, signals.shadow_differed, signals.breaker_changed
    for signal in every:
        for receiver in (hear, hear_too, fail):
            signal.connect(receiver)
    yield told
    for signal in every:
        for receiver in (hear, hear_too, fail):
            signal.disconnect(receiver)


def views(**options: Any) -> tuple[Any, Any]:
    """One view, sync and async."""

    def view(request: HttpRequest) -> HttpResponse:
        return HttpResponse("own")

    async def aview(request: HttpRequest) -> HttpResponse:
        return HttpResponse("own")

    return molt_offload(entry="e", **options)(view), molt_offload(entry="e", **options)(aview)


@pytest.mark.parametrize(
    ("options", "answer", "status"),
    [
        ({}, MoltTimeout("late"), 504),
        ({"fallback": True}, MoltUnavailable("nobody"), 200),
        ({"shadow": 1.0}, "other", 200),
        ({"shadow": 1.0}, MoltInvalidInput("no"), 200),
    ],
)
async def test_receivers_of_both_kinds_are_told_by_views_of_both_kinds(
    stub: StubClient, receivers: list[tuple[str, Any]], options: Any, answer: Any, status: int
) -> None:
    stub.answer = answer
    view, aview = views(**options)
    asked = AsyncRequestFactory().post("/x/", b"{}", "application/json")
    assert (await aview(asked)).status_code == status
    assert sorted(receivers) == [("async", "e"), ("sync", "e")]
    receivers.clear()
    assert (await asyncio.to_thread(view, post())).status_code == status
    assert sorted(receivers) == [("async", "e"), ("sync", "e")]


async def test_in_an_event_loop_the_breakers_receivers_are_told_by_the_loop(receivers: list[tuple[str, Any]]) -> None:
    clients._state_changed(SimpleNamespace(where="/shop"), "open", "nobody")  # as the client calls it, wherever that is
    await asyncio.gather(*signals._telling)
    assert sorted(receivers) == [("async", "/shop"), ("sync", "/shop")]
    assert not signals._telling
