"""Waiting for a worker: in slices, between which Python's signal handlers run, so that Ctrl-C works."""

from __future__ import annotations

from time import monotonic_ns

from ._lib import NULL, Failure, ffi, lib
from .deadline import NANO

TYPE_CHECKING = False  # see molt_accel/__init__.py
if TYPE_CHECKING:
    from typing import Any

    from .deadline import Deadline
    from .errors import MoltError

FOUND, NOT_YET, NOBODY = 0, 1, 2
_RESTART_NS = NANO  # a look is over before that, so it never ends for want of patience


def text(given: str | None) -> Any:
    """A string as the C ABI takes it."""
    return NULL if given is None else given.encode()


def new(shm: str | None, socket: str | None) -> Any:
    """A client of the C ABI, which has not attached yet."""
    failure = Failure()
    client = lib.molt_client_new(text(shm), text(socket), *failure.args)
    if client == NULL:
        raise failure.error()
    return ffi.gc(client, lib.molt_close)


def find(client: Any, absent: float, deadline: Deadline) -> None:
    """Returns when the client has a session with a worker that serves. Raises MoltError: there is none before the
    deadline, or nobody serves and nobody is about to within `absent` seconds."""
    failure = Failure()
    absent_until = monotonic_ns() + int(absent * NANO)
    while True:
        left = deadline.left_ns(client)
        found = lib.molt_seek(client, min(absent_until - monotonic_ns(), left), left, *failure.args)
        if found == FOUND:
            return
        if found == NOBODY:
            raise failure.error(deadline.entry)
        deadline.check()


def look(client: Any, slice_ns: int) -> tuple[int, MoltError | None, Any]:
    """One look for a worker and a channel to it, for an event loop: run in a thread. What came of it, why not, and the
    channel."""
    failure = Failure()
    out = ffi.new("molt_channel **")
    found = lib.molt_channel_seek(client, 0, _RESTART_NS, slice_ns, out, *failure.args)
    if found == FOUND:
        return found, None, ffi.gc(out[0], lib.molt_channel_close)
    return found, failure.error(), None
