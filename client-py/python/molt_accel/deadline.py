"""Deadlines: one for each call that has to wait, made when the call begins and handed to whatever it waits for.

What a call may take is said once: by itself, else by its entry, else by the client, else it is five seconds; an entry's
limit caps all of them. The wait for a worker, for a channel to it, for room in its ring or in shared memory, and the
way of a request that is sent again share that time; none of them has one of its own.
"""

from __future__ import annotations

from time import monotonic_ns

from . import request
from ._lib import lib
from .errors import MoltCancelled

TYPE_CHECKING = False  # see molt_accel/__init__.py
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .request import Request

NANO = 1_000_000_000


class Deadline:
    """When a call is over. A call that finds its worker there, and has nothing to place in shared memory, needs none:
    the library counts for it."""

    __slots__ = ("_gone", "_name", "began_ns", "entry", "timeout_ns")

    def __init__(self, timeout_ns: int, entry: str | None = None, gone: Callable[[], object] | None = None) -> None:
        """timeout_ns: as `molt_call` reads it. gone: asked ten times a second whether the caller has gone."""
        self.began_ns = monotonic_ns()
        self.timeout_ns = timeout_ns
        self.entry = entry
        self._name = b"" if entry is None else request.encoded(entry)
        self._gone = gone

    @classmethod
    def of(cls, seconds: float | None, entry: str | None = None) -> Deadline:
        """That long from now; None: as the entry says, else five seconds."""
        return cls(0 if seconds is None else request.nanoseconds(seconds), entry)

    @property
    def seconds(self) -> float | None:
        """The call's own time-out, if it has one."""
        return self.timeout_ns / NANO if self.timeout_ns > 0 else None

    def ends_ns(self, session: Any) -> int:
        """When it is over, by the monotonic clock and by what `session` knows of the entry."""
        return self.began_ns + lib.molt_timeout_ns(session, self._name, len(self._name), self.timeout_ns)

    def ends(self, session: Any) -> float:
        """The same in seconds, as event loops count."""
        return self.ends_ns(session) / NANO

    def left_ns(self, session: Any) -> int:
        """What is left; 0 when it is over."""
        return max(0, self.ends_ns(session) - monotonic_ns())

    def rest(self, session: Any, arguments: Request) -> Request:
        """The request with what is left of its time."""
        return (*arguments[:-1], max(1, self.left_ns(session)))

    def paused(self) -> Pause:
        """`with deadline.paused():` what happens there takes none of the call's time, as an upload does."""
        return Pause(self)

    def check(self) -> None:
        """Raises MoltCancelled when the caller has gone."""
        if self._gone is not None and self._gone():
            raise cancelled(self.entry)


class Pause:
    """Time that does not count."""

    __slots__ = ("_began_ns", "_deadline")

    def __init__(self, deadline: Deadline) -> None:
        self._deadline = deadline

    def __enter__(self) -> None:
        self._began_ns = monotonic_ns()

    def __exit__(self, *exc_info: object) -> None:
        self._deadline.began_ns += monotonic_ns() - self._began_ns


def cancelled(entry: str | None) -> MoltCancelled:
    """What a caller is told who wanted no answer any more."""
    return MoltCancelled("the caller wants no answer any more", entry=entry)
