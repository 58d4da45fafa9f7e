"""What `offload` sends for a request, and what it makes of the answer. No worker: a stub records."""

from __future__ import annotations

import json
import random
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from io import BytesIO
from typing import Any

import msgpack
import pytest
from django.http import HttpRequest, HttpResponse
from django.http.request import RawPostDataException, UnreadablePostError
from django.test import AsyncRequestFactory, RequestFactory, override_settings

from conftest import until
from molt_accel import codecs
from molt_accel.django import aoffload, body, molt_offload, offload
from molt_accel.errors import MoltBusy, MoltError, MoltUnavailable
from stub import StubBlock, StubClient

ARROW = "application/vnd.apache.arrow.stream"
factory = RequestFactory()


def post(body: bytes = b'{"a":1}', content_type: str = "application/json", **extra: Any) -> HttpRequest:
    return factory.generic("POST", "/", body, content_type, **extra)


def sent(stub: StubClient, request: HttpRequest, **options: Any) -> Any:
    assert offload(request, entry="e", **options).status_code == 200
    return stub.sent[-1]


# -- what goes over -------------------------------------------------------------------------------------------------


def test_a_small_body_goes_over_untouched_as_bytes(stub: StubClient) -> None:
    message = sent(stub, post(b" {not decoded"), timeout=0.5, params={"user": 7}, idempotent=True)
    assert message == ("e", b" {not decoded", False, codecs.JSON, codecs.JSON, 0.5, {"user": 7}, True)


@pytest.mark.parametrize("size", [4096, 4097, 65_536, 65_537, 3 * 2**20])
def test_a_larger_body_is_read_into_a_block_and_djangos_memory_limit_does_not_apply(
    stub: StubClient,
    size: int,
) -> None:
    data = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    with override_settings(DATA_UPLOAD_MAX_MEMORY_SIZE=1024):
        message = sent(stub, post(data))
    assert message.payload == data and message.in_block == (size > 4096)
    assert StubBlock.live == 0


def test_a_body_that_was_read_before_is_used(stub: StubClient) -> None:
    request = post(b"[1]")
    assert request.body == b"[1]"
    assert sent(stub, request).payload == b"[1]"


def test_a_stream_that_was_read_in_part_is_refused_as_django_does(stub: StubClient) -> None:
    request = post(b"[1]")
    request.read(1)
    with pytest.raises(RawPostDataException):
        offload(request, entry="e")


@pytest.mark.parametrize("already_read", [False, True])
def test_over_the_limit_is_413_before_anything_is_read(stub: StubClient, already_read: bool) -> None:
    request = post(b"x" * 101)
    if already_read:
        assert request.body
    with override_settings(MOLT={"MAX_BODY": 100}):
        response = offload(request, entry="e")
    assert response.status_code == 413 and stub.sent == [] and request._read_started == already_read
    assert json.loads(response.content) == {"error": "The request body is too large.", "limit": 100}


class Chunked(BytesIO):
    """A server's stream of a body without Content-Length; it hands out less than asked."""

    def read(self, size: int = -1, /) -> bytes:
        return super().read(min(size, 1000) if size > 0 else size)


def chunked(body: bytes) -> HttpRequest:
    extra = {"HTTP_TRANSFER_ENCODING": "chunked", "wsgi.input": Chunked(body), "wsgi.input_terminated": True}
    return post(b"", **extra)


def test_a_body_without_length_is_read_to_its_end_under_the_limit(stub: StubClient) -> None:
    assert sent(stub, chunked(b"y" * 70_000)).payload == b"y" * 70_000
    with override_settings(MOLT={"MAX_BODY": 69_999}):
        assert offload(chunked(b"y" * 70_000), entry="e").status_code == 413


@pytest.mark.parametrize("length", [10, 5000])
def test_a_body_that_ends_early_is_a_400(stub: StubClient, length: int) -> None:
    request = post(CONTENT_LENGTH=str(length), **{"wsgi.input": BytesIO(b"z" * 9)})
    response = offload(request, entry="e")
    assert response.status_code == 400 and stub.sent == [] and StubBlock.live == 0
    assert json.loads(response.content) == {"error": f"the request body ended after 9 of {length} bytes"}


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "DELETE"])
def test_without_a_body_query_and_url_arguments_are_one_object(stub: StubClient, method: str) -> None:
    @molt_offload(entry="e")
    def view(request: HttpRequest, **kwargs: Any) -> HttpResponse:
        raise AssertionError("the view's own code ran")

    request = factory.generic(method, "/?a=1&b=2&b=3&pk=forged")
    assert view(request, pk=7).status_code == 200
    message = stub.sent[0]
    assert message.codec == codecs.JSON
    assert json.loads(message.payload) == {"a": "1", "b": ["2", "3"], "pk": 7}
    assert msgpack.unpackb(sent(stub, request, codec="msgpack").payload)["a"] == "1"


def test_delete_may_have_a_body(stub: StubClient) -> None:
    assert sent(stub, factory.generic("DELETE", "/", b"[1]", "application/json")).payload == b"[1]"


def test_params_and_payload_may_be_made_from_the_request(stub: StubClient) -> None:
    message = sent(
        stub,
        factory.get("/?n=3"),
        payload=lambda request: {"n": int(request.GET["n"])},
        params=lambda request: {"path": request.path},
    )
    assert (message.payload, message.params, message.codec) == (b'{"n":3}', {"path": "/"}, codecs.JSON)


@pytest.mark.parametrize(("codec", "payload"), [("json", b"null"), ("msgpack", b"\xc0"), ("arrow", b"")])
def test_a_payload_that_is_none_is_sent_as_none_and_never_the_body(
    stub: StubClient, codec: str, payload: bytes
) -> None:
    assert sent(stub, post(b"[1]"), payload=lambda request: None, codec=codec).payload == payload


async def test_so_it_is_in_async_views(stub: StubClient) -> None:
    async def nothing(request: HttpRequest) -> None:
        return None

    request = AsyncRequestFactory().post("/", b"[1]", "application/json")
    assert (await aoffload(request, entry="e", payload=nothing)).status_code == 200
    assert stub.sent[0].payload == b"null"


# -- streams that are read in place ------------------------------------------------------------------------------------


def through_gunicorn(pieces: Iterable[bytes], length: int, ahead: bytes = b"") -> tuple[HttpRequest, Any]:
    """A request whose body comes out of gunicorn's own classes, off a socket."""
    from gunicorn.http.body import Body, LengthReader
    from gunicorn.http.unreader import SocketUnreader

    ours, theirs = socket.socketpair()
    unreader = SocketUnreader(ours)
    unreader.unread(ahead)

    def send() -> None:
        for piece in pieces:
            theirs.sendall(piece)
        theirs.close()

    threading.Thread(target=send).start()
    stream = Body(LengthReader(unreader, length))
    return post(CONTENT_LENGTH=str(length), **{"wsgi.input": stream}), unreader


def test_under_gunicorn_a_body_is_received_in_place(stub: StubClient, monkeypatch: pytest.MonkeyPatch) -> None:
    from gunicorn.http.body import Body

    monkeypatch.setattr(Body, "read", None)  # not called
    data = random.randbytes(3_000_000)
    request, unreader = through_gunicorn([data[1000:]], len(data), ahead=data[:1000])
    assert sent(stub, request).payload == data
    assert unreader.buf.getvalue() == b"" and request.environ["wsgi.input"].reader.length == 0


def test_under_gunicorn_the_next_request_stays_where_it_is(stub: StubClient) -> None:
    request, unreader = through_gunicorn([], 5000, ahead=b"b" * 5000 + b"GET /next")
    assert sent(stub, request).payload == b"b" * 5000
    assert unreader.buf.getvalue() == b"GET /next" and unreader.read(9) == b"GET /next"


def test_under_gunicorn_a_body_that_ends_early_is_a_400(stub: StubClient) -> None:
    request, _ = through_gunicorn([b"x" * 4999], 5000)
    assert offload(request, entry="e").status_code == 400 and stub.sent == []


def test_under_gunicorn_a_connection_that_breaks_is_not_used_again(stub: StubClient) -> None:
    request, unreader = through_gunicorn([], 5000)
    unreader.sock.close()
    with pytest.raises(UnreadablePostError):
        offload(request, entry="e")
    assert request.environ["wsgi.input"].failed and StubBlock.live == 0


def test_under_gunicorn_a_slow_upload_does_not_hold_shared_memory(
    stub: StubClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(body, "HOLD_SECONDS", 0.05)
    data, states = random.randbytes(300_000), []

    def slowly() -> Iterator[bytes]:
        yield data[:100_000]
        until(lambda: StubBlock.live == 1 or StubBlock.made, "it begins in shared memory")
        until(lambda: StubBlock.live == 0, "it gives that back, since no more comes")
        states.append(StubBlock.made)
        yield data[100_000:]

    monkeypatch.setattr(StubBlock, "made", 0)
    request, _ = through_gunicorn(slowly(), len(data))
    message = sent(stub, request)
    assert message.payload == data and message.in_block and states == [1] and StubBlock.made == 2


def test_a_server_that_hands_out_bytes_holds_none_while_they_come(stub: StubClient) -> None:
    class Slow(BytesIO):
        def read(self, size: int = -1, /) -> bytes:
            assert StubBlock.live == 0
            return super().read(min(size, 70_000))

    data = random.randbytes(300_000)
    request = post(CONTENT_LENGTH=str(len(data)), **{"wsgi.input": Slow(data)})
    message = sent(stub, request)
    assert message.payload == data and message.in_block


@pytest.mark.parametrize("way", ["at once", "slowly", "by bytes"])
def test_the_fallback_finds_a_body_for_which_there_was_no_shared_memory(
    stub: StubClient, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    @molt_offload(entry="e", fallback=True)
    def view(request: HttpRequest) -> HttpResponse:
        return HttpResponse(request.body)

    refused = threading.Event()
    made = iter([StubBlock(10_000)] if way == "slowly" else [])

    def block(size: int, deadline: Any) -> StubBlock:
        if (first := next(made, None)) is not None:
            return first
        refused.set()
        raise MoltUnavailable("it has just died")

    def pieces() -> Iterator[bytes]:
        yield data[:5000]
        if way == "slowly":
            until(lambda: StubBlock.live == 0, "its memory is given back")
        yield data[5000:]

    data = random.randbytes(10_000)
    monkeypatch.setattr(body, "HOLD_SECONDS", 0.05)
    monkeypatch.setattr(stub, "block", block)
    request = post(data) if way == "by bytes" else through_gunicorn(pieces(), len(data))[0]
    assert view(request).content == data and refused.is_set() and StubBlock.live == 0


@pytest.mark.parametrize("error", [MoltBusy("full"), MoltUnavailable("nobody")])
def test_no_answer_waits_for_a_body_that_does_not_come(
    stub: StubClient, monkeypatch: pytest.MonkeyPatch, error: MoltError
) -> None:
    monkeypatch.setattr(body, "DISCARD_SECONDS", 0.05)
    answered = threading.Event()

    def never() -> Iterator[bytes]:
        yield b"x" * 100_000
        answered.wait(60)

    stub.session_error = error
    request, _ = through_gunicorn(never(), 1_000_000)
    began = time.monotonic()
    assert offload(request, entry="e").status_code == 503
    assert time.monotonic() - began < 30, "the client holds on for a minute"
    answered.set()
    assert request._read_started, "what had come was read"


def test_under_asgi_a_body_is_read_in_place(stub: StubClient) -> None:
    from tempfile import SpooledTemporaryFile

    with SpooledTemporaryFile() as file:
        file.write(b"y" * 10_000)
        file.seek(0)
        request = post(b"y" * 10_000)
        request._stream = file
        request.read = None  # not called
        assert sent(stub, request).payload == b"y" * 10_000


# -- codecs by HTTP -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content_type", "default", "codec"),
    [
        ("application/json", "msgpack", codecs.JSON),
        ("application/json; charset=utf-8", "msgpack", codecs.JSON),
        ("application/msgpack", "json", codecs.MSGPACK),
        ("application/x-msgpack", "json", codecs.MSGPACK),
        (ARROW, "json", codecs.ARROW),
        ("text/plain", "arrow", codecs.ARROW),
        ("", "msgpack", codecs.MSGPACK),
    ],
)
def test_the_content_type_names_the_codec(
    stub: StubClient,
    content_type: str,
    default: str,
    codec: int,
) -> None:
    assert sent(stub, post(content_type=content_type), codec=default).codec == codec


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        (None, "application/json"),
        ("*/*", "application/json"),
        ("text/html,application/xhtml+xml,*/*;q=0.8", "application/json"),
        ("application/msgpack", "application/msgpack"),
        ("application/x-msgpack, application/json;q=0.5", "application/msgpack"),
        ("application/msgpack;q=0.1, application/json", "application/json"),
        (ARROW, ARROW),
        ("image/png", "application/json"),
    ],
)
def test_accept_chooses_the_answers_codec(stub: StubClient, accept: str | None, content_type: str) -> None:
    for _ in range(2):  # the second time from the cache
        response = offload(post(**({} if accept is None else {"HTTP_ACCEPT": accept})), entry="e")
        assert response.headers["Content-Type"] == content_type and response.headers["Vary"] == "Accept"
        assert stub.sent[-1].accept == {v: k for k, v in content_types().items()}[content_type]


def content_types() -> Any:
    from molt_accel.django.answers import CONTENT_TYPES

    return CONTENT_TYPES


def test_raw_stays_raw(stub: StubClient) -> None:
    stub.answer = b"\x00"
    response = offload(post(b"\x01", "application/octet-stream"), entry="e", codec="raw")
    assert (stub.sent[0].codec, response.content) == (codecs.RAW, b"\x00")
    assert response.headers["Content-Type"] == "application/octet-stream" and "Vary" not in response.headers


# -- the answer -----------------------------------------------------------------------------------------------------


def test_the_workers_bytes_are_the_answer_and_its_metrics_are_at_hand(stub: StubClient) -> None:
    response = offload(post(), entry="e")
    assert response.content == b'{"ok":true}' and response.molt.exec_us == 2


def test_the_answer_can_be_shaped(stub: StubClient) -> None:
    as_object = offload(post(), entry="e", response=lambda request, answer: {"path": request.path, **answer})
    assert json.loads(as_object.content) == {"path": "/", "ok": True}
    as_response = offload(post(), entry="e", response=lambda request, answer: HttpResponse("made", status=201))
    assert (as_response.status_code, as_response.content) == (201, b"made")
    assert "Vary" not in as_object.headers and "Vary" not in as_response.headers, "they are what the view made"
    assert as_response.molt.exec_us == 2


async def test_async_views_may_use_coroutine_functions(stub: StubClient) -> None:
    async def params(request: HttpRequest) -> dict[str, int]:
        return {"user": 1}

    async def shape(request: HttpRequest, answer: Any) -> Any:
        return [answer]

    request = AsyncRequestFactory().post("/", b"x" * 5000, "application/json")
    response = await aoffload(request, entry="e", params=params, response=shape)
    assert json.loads(response.content) == [{"ok": True}]
    assert stub.sent[0].params == {"user": 1} and stub.sent[0].payload == b"x" * 5000
