"""A session of this process with one worker: attached at first use, again after a fork, and after the worker's end."""

from __future__ import annotations

from _thread import RLock

from . import attaching, forks, request
from ._lib import ffi, lib
from .breaker import CLOSED, Breaker
from .deadline import Deadline
from .errors import MoltClosed, MoltError

TYPE_CHECKING = False  # see molt_accel/__init__.py
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Self
    from weakref import ref

    from .aio import Channel

DEFAULT_SHM = "/molt0"
DEFAULT_SECONDS = 5.0
"""Time-out where neither the call, nor its entry, nor the client says."""


class Attachment:
    """The part of a client that has the session."""

    def __init__(
        self,
        shm: str | None = None,
        wait: float = 0.0,
        socket: str | None = None,
        *,
        timeout: float | None = None,
        on_state: Callable[[Self, str, str], object] | None = None,
    ) -> None:
        """`shm`: the segment's name. `socket`: where the worker listens; alone it is enough, and the only way to a
        segment without a name (`molt_worker --memfd`). Neither: `/molt0`. `wait`: seconds to wait for a worker that is
        not there yet, within the time-out of the call that waits. `timeout`: for calls and entries that name none (else
        5 s). `on_state`: called with the client,
        "open" or "closed", and the reason when its circuit breaker opens or closes; without it the logger
        `molt_accel.client` is told."""
        self.shm = DEFAULT_SHM if shm is None and socket is None else shm
        self.wait = wait
        self.socket = socket
        self.where = self.shm or self.socket
        """What messages call the worker: its segment's name, or its socket."""
        self.timeout = timeout
        # A negative time-out is the C ABI's "unless the entry has its own".
        self._default_ns = 0 if timeout is None else -request.nanoseconds(timeout)
        self._on_state = on_state
        self.breaker = Breaker(self.shm, socket, self._state_changed)
        """Whether calls wait for a worker: `breaker.state` is "closed" where all is well."""
        self._closed = False
        # The destructor that ffi.gc attaches runs when the last call that uses the session has returned, so `close`
        # in one thread cannot pull the session from under another.
        self._native: Any = None  # made at first use
        self._session: Any = None  # the same, once it has attached
        self._lock = RLock()  # nobody waits for anything while holding it; a signal handler may call in between
        self._channels: dict[int, ref[Channel]] = {}  # by id of their event loop, see aio.py
        forks.join(self)

    def close(self) -> None:
        """Ends the session. Calls that run in other threads finish; tables stay valid; a second close does nothing."""
        with self._lock:
            self._closed = True
            native, self._native, self._session = self._native, None, None
            channels, self._channels = self._channels, {}
        for kept in channels.values():
            if (channel := kept()) is not None:
                channel.close_soon()
        del native

    async def aclose(self) -> None:
        """`close` for event loops."""
        self.close()

    def __enter__(self) -> Self:
        self.session(self._attaching())
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        await self.aattach(False, self._attaching())
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        state = "closed" if self._closed else "attached" if self._session is not None else "not attached"
        return f"<molt_accel.Client {self.where} {state}>"

    def deadline(
        self,
        timeout: float | Deadline | None = None,
        entry: str | None = None,
        gone: Callable[[], object] | None = None,
    ) -> Deadline:
        """One time-out for several steps: what `session`, `block` and `place` wait for counts as `exchange`'s time. gone:
        as in `exchange`."""
        return timeout if type(timeout) is Deadline else Deadline(self._nanoseconds(timeout), entry, gone)

    def session(self, timeout: float | Deadline | None = None) -> Any:
        """The C pointer of the session, attached if it was not yet."""
        return self._session if self._session is not None else self._present(self.deadline(timeout))

    def _nanoseconds(self, timeout: float | Deadline | None) -> int:
        """A time-out as the C ABI takes it."""
        if timeout is None:
            return self._default_ns
        return timeout.timeout_ns if type(timeout) is Deadline else request.nanoseconds(timeout)

    def _attaching(self) -> float:
        """How long it may take to attach where no call waits for that."""
        return max(self.wait, DEFAULT_SECONDS if self.timeout is None else self.timeout)

    def _present(self, deadline: Deadline) -> Any:
        """The session, with a worker that serves: waits for one that is being started."""
        session = self._session
        if session is not None and lib.molt_is_attached(session):
            return session
        native = self._unattached()
        absent = self._seeks()
        try:
            attaching.find(native, absent, deadline)
        except BaseException as error:
            raise self._found_none(error) from None
        return self._found(native)

    async def _apresent(self, deadline: Deadline) -> None:
        """`_present` for event loops, with a channel for the running one."""
        from .aio import channel_of_running_loop

        channel = channel_of_running_loop(self, self._channels)
        absent = self._seeks()
        try:
            await channel.attach(deadline, absent)
        except BaseException as error:
            raise self._found_none(error) from None
        self._found(channel.client)

    async def aattach(self, present: bool = False, timeout: float | Deadline | None = None) -> None:
        """`session` for event loops; a thread waits for the worker in their place.

        present: also wait for the successor of a worker that has gone, to place a payload in its arena."""
        session = self._session
        if session is None or (present and not lib.molt_is_attached(session)):
            await self._apresent(self.deadline(timeout))

    def _unattached(self) -> Any:
        """What attaches: made here, and not before it is needed."""
        with self._lock:
            if self._closed:
                raise MoltClosed(f"the client of {self.where} is closed. hint: attach() makes a new one")
            if self._native is None:
                self._native = attaching.new(self.shm, self.socket)
            return self._native

    def _seeks(self) -> float:
        """Whether a worker may be waited for, and how many seconds where nobody is about to serve. Who asks says how it
        ended, by one of the next two."""
        if not self.breaker.is_clear:
            self.breaker.admit()
        return self.wait if self._session is None and self.breaker.state is CLOSED else 0.0

    def _found(self, native: Any) -> Any:
        with self._lock:
            if not self._closed:
                self._session = native
        if not self.breaker.is_clear:
            self.breaker.succeeded()
        return native

    def _found_none(self, error: BaseException) -> BaseException:
        if isinstance(error, MoltError):
            return self.breaker.not_attached(error)
        self.breaker.gave_up()
        return error

    def _state_changed(self, state: str, reason: str) -> None:
        if self._on_state is not None:
            self._on_state(self, state, reason)
            return
        import logging

        level = logging.WARNING if state != CLOSED else logging.INFO
        logging.getLogger("molt_accel.client").log(level, "%s: circuit breaker %s: %s", self.where, state, reason)

    def _forked(self) -> None:
        """In a forked child: forget the parent's session without ending it; the next call attaches anew."""
        native, self._native, self._session = self._native, None, None
        self.breaker.reset()
        self._lock = RLock()  # the copy may be locked by a thread that the child does not have
        channels, self._channels = self._channels, {}
        for kept in channels.values():
            if (channel := kept()) is not None:
                channel.forget()
        if native is not None:
            ffi.gc(native, None)
            lib.molt_forked(native)
