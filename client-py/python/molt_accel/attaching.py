"""Waiting for a worker: in slices, between which Python's signal handlers run, so that Ctrl-C works."""

from __future__ import annotations

import time

from ._lib import NULL, Failure, lib
from .errors import MoltUnavailable

TYPE_CHECKING = False  # see molt_accel/__init__.py
if TYPE_CHECKING:
    from typing import Any

_SLICE_MS = 100  # the library waits without the GIL


def text(given: str | None) -> Any:
    """A string as the C ABI takes it."""
    return NULL if given is None else given.encode()


def attach(shm: str | None, socket: str | None, wait: float) -> Any:
    """A session of the C ABI, had within `wait` seconds. Raises MoltError."""
    failure = Failure()
    name, path = text(shm), text(socket)
    end = time.monotonic() + wait
    while True:
        left_ms = max(0, int((end - time.monotonic()) * 1000))
        session = lib.molt_attach(name, path, min(left_ms, _SLICE_MS), *failure.args)
        if session != NULL:
            return session
        error = failure.error()
        if left_ms <= _SLICE_MS or not isinstance(error, MoltUnavailable):
            raise error


def reattach(session: Any, wait: float) -> None:
    """Returns when the session has a worker that serves. Raises MoltError: nobody does, and nobody starts one within
    `wait` seconds."""
    failure = Failure()
    end = time.monotonic() + wait
    while found := lib.molt_reattach(session, 0, max(0, int((end - time.monotonic()) * 1000)), *failure.args):
        if found > 1:
            raise failure.error()
