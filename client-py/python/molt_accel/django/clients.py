"""The process's client: made at the first request, shared by all threads and event loops, renewed after a fork."""

from __future__ import annotations

import logging
import os
from threading import Lock
from typing import Any

from ..breaker import CLOSED
from ..client import Client
from . import metrics, settings, signals

logger = logging.getLogger("molt_accel.request")

_lock = Lock()
_clients: dict[tuple[str | None, str | None, float, float], Client] = {}
stand_in: Any = None
"""What tests put in every client's place (`molt_accel.testing.fake`)."""


def _forked() -> None:
    """In a forked child: another thread of the parent may have held the lock, and nobody is left to give it back."""
    global _lock
    _lock = Lock()


os.register_at_fork(after_in_child=_forked)


def client() -> Client:
    """The `Client` that the settings in force describe. It attaches at its first use, and anew in a forked child."""
    if stand_in is not None:
        return stand_in
    wanted = settings.read()
    key = wanted.SHM, wanted.SOCKET, wanted.TIMEOUT, wanted.ATTACH_WAIT
    kept = _clients.get(key)
    if kept is None:
        with _lock:
            kept = _clients.get(key) or Client(
                wanted.SHM, wanted.ATTACH_WAIT, wanted.SOCKET, timeout=wanted.TIMEOUT, on_state=_state_changed
            )
            _clients[key] = kept
    return kept


def close() -> None:
    """Ends the process's sessions; the next `client()` begins anew. For the end of a test."""
    with _lock:
        ended = list(_clients.values())
        _clients.clear()
    for kept in ended:
        kept.close()


def _state_changed(client: Client, state: str, reason: str) -> None:
    level = logging.INFO if state == CLOSED else logging.WARNING
    extra = {"worker": client.where, "state": state}
    logger.log(level, "circuit breaker of %s is %s: %s", client.where, state, reason, extra=extra)
    metrics.breaker(state)
    signals.tell(signals.breaker_changed, sender=client.where, client=client, state=state, reason=reason)
