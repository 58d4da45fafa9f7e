"""The circuit breaker: who finds no worker again and again stops waiting for one.

Without it each caller would wait for itself: in the queue of a worker that is being started, for one that does not
answer a hello, for as long as `wait` says. After five calls in a row that ended as unavailable the breaker opens, and
calls end as unavailable at once. It closes with the first call that reaches a worker. To find out,

- every call looks whether a worker serves under the segment's name, which asks nobody and takes microseconds; so the
  first request after a worker's start is served;
- one call at a time tries in earnest, after a pause that doubles while that fails: the look may be wrong, and of a
  worker without a name a socket tells nothing.

Each client has one of its own, and each process its clients: nothing is shared, nothing is asked.
"""

from __future__ import annotations

import random
import time
from _thread import RLock

from ._lib import NULL, lib
from .errors import (
    MoltBusy,
    MoltInternalError,
    MoltInvalidInput,
    MoltTimeout,
    MoltTooLarge,
    MoltUnavailable,
    MoltUnknownEntry,
)

TYPE_CHECKING = False  # see molt_accel/__init__.py
if TYPE_CHECKING:
    from collections.abc import Callable

    from .errors import MoltError

FAILURES = 5
"""Calls in a row that find no worker, until the breaker opens."""
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 0.25
"""Seconds between two tries while it is open, more or less."""
LONGEST_TRY = 30.0
"""Seconds after which another call may try though nobody has said what became of the last try."""

CLOSED, OPEN, HALF_OPEN = "closed", "open", "half-open"
_SERVES = 1
_ANSWERS = (MoltInvalidInput, MoltUnknownEntry, MoltTooLarge, MoltBusy, MoltInternalError)
"""Outcomes that only a worker's presence explains. A time-out and a lost worker say nothing of the next call."""


class Breaker:
    """The state of one client's way to its worker. Threads share it."""

    __slots__ = (
        "_changed",
        "_lock",
        "_name",
        "_path",
        "_pause",
        "_reason",
        "_try_at",
        "failures",
        "is_clear",
        "state",
        "where",
    )

    def __init__(self, shm: str | None, socket: str | None, changed: Callable[[str, str], None]) -> None:
        """changed: called with the new state, open or closed, and the reason."""
        self._name = NULL if shm is None else shm.encode()
        self._path = NULL if socket is None else socket.encode()
        self.where = shm or socket
        self._changed = changed
        self.reset()

    def reset(self) -> None:
        """As at first. In a forked child too: a lock that another thread of the parent held stays locked there."""
        self._lock = RLock()  # a signal handler may call while its thread is in here
        self.state = CLOSED
        self.failures = 0
        """Calls in a row that found no worker."""
        self.is_clear = True
        """No failure since the last success: nothing needs to be asked or told. A call pays for no more."""
        self._try_at = 0.0
        self._pause = FIRST_PAUSE
        self._reason = ""

    def admit(self, entry: str | None = None) -> None:
        """Lets a call pass, or raises MoltUnavailable at once. Who passes says how it ended, by one of the others."""
        if self.state is CLOSED or lib.molt_serves(self._name, self._path) == _SERVES:
            return
        with self._lock:
            left = self._try_at - time.monotonic()
            if self.state is CLOSED:
                return
            if left > 0:
                raise MoltUnavailable(
                    f"no worker of {self.where} was found {self.failures} times in a row, and this call did not "
                    f"wait for one (the circuit breaker is open); the last one was told: {self._reason}",
                    entry=entry,
                    retry_after=min(left, LONGEST_PAUSE),
                )
            self.state = HALF_OPEN
            self._try_at = time.monotonic() + LONGEST_TRY

    def failed(self, error: MoltError) -> MoltError:
        """A call ended with that error; returns it."""
        if isinstance(error, MoltUnavailable):
            self._count(error)
        elif not self.is_clear:
            if isinstance(error, _ANSWERS):
                self.succeeded()
            else:
                self.gave_up()
        return error

    def not_attached(self, error: MoltError) -> MoltError:
        """The same for a wait for a worker: one that answers no hello in the time of a call is as good as none."""
        if isinstance(error, MoltTimeout):
            self._count(error)
            return error
        return self.failed(error)

    def _count(self, error: MoltError) -> None:
        with self._lock:
            self.is_clear = False
            self.failures += 1
            self._reason = error.message
            opens = self.state is CLOSED and self.failures >= FAILURES
            if opens or self.state is not CLOSED:
                self._open(self._pause)
                self._pause = min(2 * self._pause, LONGEST_PAUSE)
        if opens:
            self._changed(OPEN, error.message)

    def gave_up(self) -> None:
        """A call ended without telling whether there is a worker: another one may try."""
        with self._lock:
            if self.state is HALF_OPEN:
                self._open(self._pause)

    def succeeded(self) -> None:
        """A call reached the worker. Needed only while `is_clear` is false."""
        with self._lock:
            closes = self.state is not CLOSED
            self.state, self.failures, self._pause, self.is_clear = CLOSED, 0, FIRST_PAUSE, True
        if closes:
            self._changed(CLOSED, "a worker serves again")

    def _open(self, pause: float) -> None:
        self.state = OPEN
        # All processes of a machine lose their worker at one moment; they need not all look for it at another.
        self._try_at = time.monotonic() + random.uniform(0.5, 1.5) * pause
