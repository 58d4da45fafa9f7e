"""The request's body: from the server's stream straight into shared memory, never through `request.body`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from io import BytesIO
from time import monotonic
from typing import Any

from django.conf import settings as django_settings
from django.http import HttpRequest
from django.http.request import RawPostDataException

from ..block import Block
from ..client import Client
from ..deadline import Deadline
from ..errors import MoltError, MoltInvalidInput, MoltTooLarge
from .streams import InPlace, in_place

SMALL_BYTES = 4096
"""Up to here a body goes over as bytes: it fits the ring, and a block would cost more than the copy."""
CHUNK_BYTES = 256 * 1024
"""Asked of the server's stream at once: large enough to be few calls, small enough to stay in the cache."""
HOLD_SECONDS = 0.25
"""Shared memory is held for a body that has not come, and no longer."""
DISCARD_SECONDS = 0.5
"""An answer waits for the rest of a body that nobody wants, and no longer."""
DISCARD_BYTES = 64 * 1024
"""Read at once of that."""

_BODILESS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})


class Body:
    """A body on its way to the worker."""

    __slots__ = ("_request", "payload")

    payload: bytes | Block

    def __init__(self, payload: bytes | Block, request: HttpRequest | None = None) -> None:
        self.payload = payload
        self._request = request  # whose stream was read for it

    def restore(self) -> None:
        """Gives the body back to the request, so that a view that runs after all finds `request.body`."""
        request = self._request
        if request is not None:
            payload = self.payload
            _give_back(request, payload if isinstance(payload, bytes) else bytes(payload.view))

    def free(self) -> None:
        """Gives back the shared memory."""
        if not isinstance(self.payload, bytes):
            self.payload.free()


def has_body(request: HttpRequest) -> bool:
    """Whether the input is the body; else it is query parameters and URL arguments."""
    if request.method in _BODILESS:
        return False
    return request.method != "DELETE" or bool(content_length(request)) or "HTTP_TRANSFER_ENCODING" in request.META


def content_length(request: HttpRequest) -> int | None:
    """What the client announces; None when it announces nothing usable."""
    try:
        length = int(request.META.get("CONTENT_LENGTH") or -1)
    except ValueError:
        return None
    return length if length >= 0 else None


def in_arena(request: HttpRequest) -> bool:
    """Whether `read` will ask for shared memory, which takes a worker that serves."""
    return has_body(request) and not hasattr(request, "_body") and (content_length(request) or 0) > SMALL_BYTES


def read(request: HttpRequest, client: Client, limit: int, deadline: Deadline) -> Body:
    """Reads the body. Over `limit` bytes it is MoltTooLarge: before anything is read where the length is announced.

    The wait for shared memory counts as the call's time, the upload does not: that is for the server to limit."""
    if hasattr(request, "_body"):  # somebody has read it already
        _check(len(request._body), limit)
        return Body(request._body)
    if request._read_started:  # type: ignore[attr-defined]
        raise RawPostDataException(
            "the request's body was read by something else before the offload. hint: offload first; or hand over what "
            "was parsed, `payload=lambda request: request.data` under Django REST framework"
        )
    length = content_length(request)
    if length is None:
        with deadline.paused():
            return Body(_read_unannounced(request, limit), request)
    _check(length, limit)
    if length <= SMALL_BYTES:
        with deadline.paused():
            data = request.read(length)
            while len(data) < length and (more := request.read(length - len(data))):
                data += more
        if len(data) < length:
            raise _cut(len(data), length)
        return Body(data, request)
    stream = in_place(request, length)
    if stream is None:
        return Body(_gathered(request, client, length, deadline), request)
    return Body(_received(request, client, length, stream, deadline), request)


def keep(request: HttpRequest, limit: int) -> bool:
    """Reads the body into the request, for the view and for a comparison; whether it is there for both.

    What Django would not take into memory (DATA_UPLOAD_MAX_MEMORY_SIZE), what has no announced length and what somebody
    reads already stays as it is: a comparison may cost a view neither its memory nor its stream.
    """
    if hasattr(request, "_body"):
        return len(request._body) <= limit
    own = django_settings.DATA_UPLOAD_MAX_MEMORY_SIZE
    length = content_length(request)
    if length is None or length > min(limit, length if own is None else own):
        return False
    if request._read_started:  # type: ignore[attr-defined]
        return False
    return len(request.body) == length


def lift_limit(request: HttpRequest, limit: int) -> None:
    """Lets the view's own code read `request.body` as far as the worker would have been sent it.

    DATA_UPLOAD_MAX_MEMORY_SIZE alone would refuse there what the same URL takes while the worker serves. Nothing is
    read before the view does, so one that streams the body still can.
    """
    own = django_settings.DATA_UPLOAD_MAX_MEMORY_SIZE
    if own is not None and own < (content_length(request) or 0) <= limit and not hasattr(request, "_body"):
        request.__class__ = _lifted(type(request))


@cache
def _lifted(kind: type[HttpRequest]) -> type[HttpRequest]:
    class Lifted(kind):  # type: ignore[misc,valid-type]
        @property
        def body(self) -> bytes:
            if not hasattr(self, "_body") and not self._read_started:
                _give_back(self, self.read())
            return super().body

    Lifted.__name__, Lifted.__qualname__, Lifted.__module__ = kind.__name__, kind.__qualname__, kind.__module__
    return Lifted


def _give_back(request: HttpRequest, data: bytes) -> None:
    """Has the request's body be those bytes, whoever asks for it and however."""
    request._body = data  # type: ignore[attr-defined]
    request._stream = BytesIO(data)  # type: ignore[attr-defined]


def discard(request: HttpRequest, limit: int) -> None:
    """Reads what is left of a body that nobody wants any more, if it is not over `limit` and comes soon.

    A WSGI server that finds a body unread closes the connection without a word in the answer's headers (gunicorn from
    64 KiB on), and the client's next request on that connection fails. Over the limit that is as it should be; and an
    answer that says "busy" may not hold the thread for as long as a client likes.
    """
    length = content_length(request) or 0
    if hasattr(request, "_body") or not 0 < length <= limit:
        return
    until = monotonic() + DISCARD_SECONDS
    with suppress(OSError):  # the client is gone
        stream = None if request._read_started else in_place(request, length)  # type: ignore[attr-defined]
        if stream is None:
            while request.read(DISCARD_BYTES) and monotonic() < until:
                pass
            return
        request._read_started = True  # type: ignore[attr-defined]
        view, left = memoryview(bytearray(DISCARD_BYTES)), length
        while left and stream.is_ready(until - monotonic()) and (count := stream.readinto(view[:left])):
            left -= count


def _received(request: HttpRequest, client: Client, length: int, stream: InPlace, deadline: Deadline) -> Block:
    """The body where the worker reads it, straight from the server's stream.

    A slow upload gives the shared memory back, and gets it again when it is complete: a few of them would hold it all.
    """
    block = client.block(length, deadline)
    request._read_started = True  # type: ignore[attr-defined]
    try:
        with deadline.paused():
            position = _fill(stream, block.view, 0, monotonic() + HOLD_SECONDS)
        if position == length:
            return block
        slow = bytearray(length)
        slow[:position] = block.view[:position]
    except BaseException:
        block.free()
        raise
    block.free()
    with deadline.paused():
        _fill(stream, memoryview(slow), position, math.inf)
    return _placed(request, client, [slow], length, deadline)


def _fill(stream: InPlace, view: memoryview, position: int, until: float) -> int:
    """Reads on from `position`, to the end or until the stream keeps one waiting at that time; how far it came."""
    while position < len(view):
        if until < math.inf and not stream.is_ready(until - monotonic()):
            break
        count = stream.readinto(view[position:])
        if not count:
            raise _cut(position, len(view))
        position += count
    return position


def _gathered(request: HttpRequest, client: Client, length: int, deadline: Deadline) -> Block:
    """The body where the worker reads it, from a server that hands out bytes and waits for each of them."""
    chunks, position = [], 0
    with deadline.paused():
        while position < length:
            chunk = request.read(min(CHUNK_BYTES, length - position))
            if not chunk:
                raise _cut(position, length)
            chunks.append(chunk)
            position += len(chunk)
    return _placed(request, client, chunks, length, deadline)


def _placed(
    request: HttpRequest, client: Client, chunks: Sequence[bytes | bytearray], length: int, deadline: Deadline
) -> Block:
    try:
        block = client.block(length, deadline)
    except MoltError:
        _give_back(request, b"".join(chunks))  # it has been read, and the view's own code may run after all
        raise
    position = 0
    for chunk in chunks:
        block.view[position : position + len(chunk)] = chunk
        position += len(chunk)
    return block


def _read_unannounced(request: HttpRequest, limit: int) -> bytes:
    """A chunked body, whose length shows when it ends. Under WSGI Django's own stream is empty then, and the server's
    may be read to its end only if the server says so."""
    stream: Any = request
    environ = getattr(request, "environ", None)
    if environ is not None and environ.get("wsgi.input_terminated"):
        stream = environ["wsgi.input"]
        request._read_started = True  # type: ignore[attr-defined]
    chunks, total = [], 0
    while chunk := stream.read(CHUNK_BYTES):
        total += len(chunk)
        _check(total, limit)
        chunks.append(chunk)
    return b"".join(chunks)


def _check(length: int, limit: int) -> None:
    if length > limit:
        raise MoltTooLarge(
            f"the request body has {length} bytes or more, the limit is {limit}. hint: MOLT['MAX_BODY'] sets it",
            details={"limit": limit},
        )


def _cut(position: int, length: int) -> MoltInvalidInput:
    return MoltInvalidInput(f"the request body ended after {position} of {length} bytes")
