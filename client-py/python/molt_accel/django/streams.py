"""Reading a body into memory that the caller owns, where the server allows it.

WSGI promises `read()` only, so a body passes through several bytes objects before anybody may look at it, which costs
far more than receiving it where it belongs. Whatever is not exactly as expected is read the ordinary way.
"""

from __future__ import annotations

import select
from collections.abc import Callable
from io import BytesIO
from typing import Any, NamedTuple

from django.http import HttpRequest, UnreadablePostError


class InPlace(NamedTuple):
    """A body that can be read into memory of one's own."""

    readinto: Callable[[memoryview], int]
    """Fills the view from its start, at least one byte unless the stream has ended; returns how many."""
    is_ready: Callable[[float], bool]
    """Whether that will not wait; asks for so many seconds."""


def in_place(request: HttpRequest, length: int) -> InPlace | None:
    """How to read the `length` bytes of this request's body in place; None when only `request.read` will do."""
    stream = request._stream  # type: ignore[attr-defined]
    own = getattr(stream, "readinto", None)  # the spooled file of Django's ASGI handler, which is complete
    if own is not None:
        return InPlace(own, lambda seconds: True)
    body = getattr(request, "environ", {}).get("wsgi.input")
    if type(body).__module__ == "gunicorn.http.body":
        return _gunicorn(body, length)
    return None


def _gunicorn(body: Any, length: int) -> InPlace | None:
    """gunicorn's sync and gthread workers: what it has read ahead first, then straight from the socket."""
    reader: Any = getattr(body, "reader", None)
    unreader: Any = getattr(reader, "unreader", None)
    socket: Any = getattr(unreader, "sock", None)
    if (
        type(reader).__name__ != "LengthReader"  # a chunked body has no place of its own
        or reader.length != length
        or body.buf.tell()
        or type(unreader).__name__ != "SocketUnreader"
        or not hasattr(socket, "recv_into")
    ):
        return None

    def read(view: memoryview) -> int:
        ahead = unreader.buf.getvalue()
        if ahead:
            count = min(len(ahead), len(view))
            view[:count] = ahead[:count]
            unreader.buf = BytesIO()
            unreader.buf.write(ahead[count:])  # the next request, pipelined behind this body
        else:
            try:
                count = socket.recv_into(view)
            except OSError as reason:
                body.failed = True  # tells gunicorn not to use the connection again
                raise UnreadablePostError(*reason.args) from reason
        reader.length -= count
        return count

    def is_ready(seconds: float) -> bool:
        if unreader.buf.getbuffer().nbytes or getattr(socket, "pending", int)():  # no poll tells of what TLS holds
            return True
        if socket.fileno() < 0:  # reading will say so
            return True
        poll = select.poll()
        poll.register(socket, select.POLLIN)
        return bool(poll.poll(max(0.0, seconds) * 1000))

    return InPlace(read, is_ready)
