"""Admission: no more requests in Django at once than a process can work on, and a quick 503 for those beyond.

An ASGI server hands over whatever arrives. Beyond its capacity a process then works on hundreds of requests at once, a
little on each, and answers all of them late. Behind `admission` the others wait before Django, where waiting costs
nothing, and who has waited too long is told to come again.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from io import BytesIO
from time import monotonic
from typing import Any
from weakref import WeakKeyDictionary

from django.conf import settings as django_settings
from django.core.exceptions import ImproperlyConfigured
from django.core.handlers.asgi import ASGIRequest, get_script_prefix
from django.http import HttpResponse, HttpResponseBadRequest

from ..errors import MoltBusy
from . import answers, metrics, settings
from .body import DISCARD_SECONDS

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

FIFO_SECONDS = 0.05
"""They come in their turn while the first has waited no longer than that; then the last come first, as in the client's
own line (`aio.py`): in their turn all would be late."""
RETRY_SECONDS = 1.0
QUIET_SECONDS = 10.0
"""The log has a line when requests begin to be refused, and the next one only after that long without."""

logger = logging.getLogger("molt_accel.request")


def admission(application: Application) -> Admission:
    """`application = admission(get_asgi_application())` in asgi.py, with `MOLT["ADMISSION"]` in the settings."""
    return Admission(application)


class Admission:
    """An ASGI application in front of another one."""

    def __init__(self, application: Application) -> None:
        wanted = settings.read().ADMISSION
        if not isinstance(wanted, settings.Admission):
            raise ImproperlyConfigured(
                f"admission() finds no {settings.SETTING}['ADMISSION']. hint: name the URLs that it is for, "
                "{'paths': ['/totals/']}"
            )
        self._application = application
        self._paths = wanted.paths
        self._most = wanted.in_flight
        self._wait = wanted.wait
        self._lines: WeakKeyDictionary[asyncio.AbstractEventLoop, _Line] = WeakKeyDictionary()
        self._refused_at = -QUIET_SECONDS

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not _path(scope).startswith(self._paths):
            return await self._application(scope, receive, send)
        upload = _Upload(receive)
        await upload.read(django_settings.FILE_UPLOAD_MAX_MEMORY_SIZE)
        line = self._line()
        if not await line.enter():
            self._tell()
            return await _refuse(scope, upload, send)
        try:
            await self._application(scope, upload, send)
        finally:
            line.leave()

    def _line(self) -> _Line:
        """That of the running loop: a process has one, and whoever has more shares nothing between them."""
        loop = asyncio.get_running_loop()
        line = self._lines.get(loop)
        if line is None:
            line = self._lines[loop] = _Line(self._most, self._wait)
        return line

    def _tell(self) -> None:
        now = monotonic()
        if now - self._refused_at > QUIET_SECONDS:
            logger.warning(
                "overload: requests are refused, since %d are worked on and others have waited for %g s. hint: more "
                "processes or machines; MOLT['ADMISSION'] sets both numbers",
                self._most,
                self._wait,
            )
        self._refused_at = now


class _Line:
    """Who waits before Django, in one event loop."""

    def __init__(self, most: int, wait: float) -> None:
        self._room = most
        self._wait = wait
        self._waiting: deque[tuple[asyncio.Future[bool], float]] = deque()  # and since when

    async def enter(self) -> bool:
        """Whether the request may go on; then `leave` gives its place to the next."""
        if self._room:  # nobody waits while there is room
            self._room -= 1
            metrics.admitted(metrics.AT_ONCE)
            return True
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[bool] = loop.create_future()
        self._waiting.append((turn, loop.time()))
        patience = loop.call_later(self._wait, _end, turn)
        try:
            admitted = await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.result():
                self.leave()  # the place came in the same turn of the loop
            raise
        finally:
            patience.cancel()
        metrics.admitted(metrics.WAITED if admitted else metrics.REFUSED)
        return admitted

    def leave(self) -> None:
        """Gives the place to the next in line."""
        waiting = self._waiting
        while waiting and waiting[0][0].done():
            waiting.popleft()
        is_overloaded = bool(waiting) and asyncio.get_running_loop().time() - waiting[0][1] > FIFO_SECONDS
        while waiting:
            turn, _ = waiting.pop() if is_overloaded else waiting.popleft()
            if not turn.done():
                turn.set_result(True)
                return
        self._room += 1


def _end(turn: asyncio.Future[bool]) -> None:
    if not turn.done():
        turn.set_result(False)


def _path(scope: Scope) -> str:
    """As the URL configuration sees it."""
    path: str = scope["path"]
    return path.removeprefix(get_script_prefix(scope))


class _Upload:
    """A request's body, read before the request waits and handed on afterwards: a client that sends it slowly holds no
    place, and a server that finds a body unread may close the connection with the answer."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._read: deque[Message] = deque()
        self.is_whole = self.has_gone = False

    async def read(self, limit: int) -> None:
        """To its end, or to what Django keeps in memory of one; a larger one is for Django to read."""
        left = limit
        while left >= 0 and not (self.is_whole or self.has_gone):
            message = await self._next()
            self._read.append(message)
            left -= len(message.get("body", b""))

    async def discard(self) -> None:
        """Reads the rest, if it comes soon."""
        with suppress(TimeoutError):
            async with asyncio.timeout(DISCARD_SECONDS):
                while not (self.is_whole or self.has_gone):
                    await self._next()

    async def _next(self) -> Message:
        message = await self._receive()
        self.has_gone = message["type"] != "http.request"
        self.is_whole = not message.get("more_body", False)
        return message

    async def __call__(self) -> Message:
        return self._read.popleft() if self._read else await self._receive()


async def _refuse(scope: Scope, upload: _Upload, send: Send) -> None:
    """503 in the project's own words."""
    await upload.discard()
    if upload.has_gone:
        return
    response = _worded(scope)
    names = [(name.lower().encode("ascii"), value.encode("latin-1")) for name, value in response.items()]
    names.append((b"content-length", str(len(response.content)).encode("ascii")))
    await send({"type": "http.response.start", "status": response.status_code, "headers": names})
    await send({"type": "http.response.body", "body": response.content})


def _worded(scope: Scope) -> HttpResponse:
    try:
        request = ASGIRequest(scope, BytesIO())
    except UnicodeDecodeError:  # as Django answers it
        return HttpResponseBadRequest()
    error = MoltBusy("the process has as many requests in flight as it can work on", retry_after=RETRY_SECONDS)
    return answers.worded(request, error, answers.status_of(error))
