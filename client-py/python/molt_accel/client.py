"""A client: one session of this process with one worker, shared by its threads and event loops."""

from __future__ import annotations

import time
from _thread import RLock

from . import attaching, codecs, forks, reply, request, trace
from ._lib import NULL, Failure, ffi, lib
from .block import Block
from .breaker import CLOSED, Breaker
from .deadline import Deadline, cancelled
from .errors import MoltClosed, MoltError, MoltUnavailable
from .resident import ResidentTables

TYPE_CHECKING = False  # see molt_accel/__init__.py
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from threading import Event
    from typing import Any, Self
    from weakref import ref

    from .aio import Channel
    from .answer import Answer
    from .reply import Reply
    from .request import Request
    from .table import Table

DEFAULT_SHM = "/molt0"
DEFAULT_SECONDS = 5.0
"""Time-out where neither the call, nor its entry, nor the client says."""
QUERY_SECONDS = 30.0
"""Time-out of `query` where the call names none."""
QUERY_ENTRY = "molt.query"

_call, _call_bytes, _wait = lib.molt_call, lib.molt_call_bytes, lib.molt_wait
_take = reply.take
_build, _build_bytes, _trace = request.build, request.build_bytes, trace.context
MSGPACK, ARROW = codecs.MSGPACK, codecs.ARROW
_BYTES = (bytes, bytearray, memoryview)


class Client(ResidentTables):
    """A session with one worker. It attaches at first use; threads share it, forked children re-attach.

    Every blocking method has a twin that begins with `a` for event loops. Time-outs are seconds, as floats.
    """

    def __init__(
        self,
        shm: str | None = None,
        wait: float = 0.0,
        socket: str | None = None,
        *,
        timeout: float | None = None,
        on_state: Callable[[Client, str, str], object] | None = None,
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

    # -- calls ---------------------------------------------------------------------------------------------------

    def call(
        self,
        entry: str,
        payload: Any = None,
        codec: str = "msgpack",
        timeout: float | None = None,
        params: Mapping[str, Any] | None = None,
        idempotent: bool | None = None,
        *,
        cancel: Event | None = None,
        traceparent: str | None = None,
    ) -> Any:
        """Runs `entry` in the worker and returns its answer.

        codec: "msgpack", "json" (object in, object out; bytes are taken as already encoded), "raw" (bytes as they are)
        or "arrow" (anything with `__arrow_c_stream__` or `__arrow_c_array__`, or the bytes of an Arrow IPC stream;
        answers a `Table`). params travel beside the payload and win over anything of that name in it. idempotent: may
        the call be sent again when the worker dies while it runs (None: as the entry says). cancel: a `threading.Event`;
        once it is set the request is taken back, in the worker too, within a tenth of a second. traceparent: the W3C
        trace that the worker's log lines shall name (None: that of OpenTelemetry's current span). Raises `MoltError`.
        """
        ns = self._default_ns if timeout is None else request.nanoseconds(timeout)
        gone = None if cancel is None else cancel.is_set
        deadline = None
        if codec == "msgpack":
            number = MSGPACK
            body = codecs.pack(payload)
        else:
            number = codecs.number(codec)
            if number != ARROW:
                body = codecs.encode(number, payload)
            else:
                deadline = Deadline(ns, entry, gone)
                body = self.place(payload, deadline)
        try:
            trace = _trace(traceparent)
            if type(body) is bytes and not params and not trace:
                arguments = _build_bytes(entry, number, body, idempotent, ns)
                return self._run(entry, arguments, _call_bytes, gone, deadline).value()
            arguments = _build(entry, number, number, body, params, idempotent, ns, trace)
            return self._run(entry, arguments, gone=gone, deadline=deadline).value()
        finally:
            if number == ARROW:
                _release(body)

    async def acall(
        self,
        entry: str,
        payload: Any = None,
        codec: str = "msgpack",
        timeout: float | None = None,
        params: Mapping[str, Any] | None = None,
        idempotent: bool | None = None,
        *,
        traceparent: str | None = None,
    ) -> Any:
        """`call` for event loops. Cancelling the task cancels the request in the worker."""
        trace = _trace(traceparent)
        number = codecs.number(codec)
        ns = self._default_ns if timeout is None else request.nanoseconds(timeout)
        deadline = Deadline(ns, entry)
        await self.aattach(False, deadline)
        if number != ARROW:
            body = codecs.encode(number, payload)
        else:
            body = await self._aplacing(deadline, lambda: self._placed(payload), payload)
        try:
            arguments = _build(entry, number, number, body, params, idempotent, ns, trace)
            return (await self._arun(entry, arguments, deadline)).value()
        finally:
            if number == ARROW:
                _release(body)

    def query(
        self,
        sql: str,
        tables: Mapping[str, Any] | None = None,
        params: Mapping[str, Any] | None = None,
        timeout: float | None = None,
        *,
        cancel: Event | None = None,
    ) -> Table:
        """Runs read-only SQL on `tables`: anything Arrow, placed in shared memory once. `$x` reads params["x"]. cancel:
        as in `call`."""
        packed = codecs.pack({"sql": sql, "params": params or {}}, "params")
        gone = None if cancel is None else cancel.is_set
        deadline = Deadline(request.nanoseconds(QUERY_SECONDS if timeout is None else timeout), QUERY_ENTRY, gone)
        blocks = self._placing(deadline, lambda: self._placed_tables(tables), *tables.values()) if tables else {}
        try:
            return self._run(QUERY_ENTRY, _sql(blocks, packed, deadline), gone=gone, deadline=deadline).value()
        finally:
            _release(*blocks.values())

    async def aquery(
        self,
        sql: str,
        tables: Mapping[str, Any] | None = None,
        params: Mapping[str, Any] | None = None,
        timeout: float | None = None,
    ) -> Table:
        """`query` for event loops. Cancelling the task cancels the statement in the worker."""
        packed = codecs.pack({"sql": sql, "params": params or {}}, "params")
        deadline = Deadline(request.nanoseconds(QUERY_SECONDS if timeout is None else timeout), QUERY_ENTRY)
        await self.aattach(True, deadline)
        blocks = {}
        if tables:
            blocks = await self._aplacing(deadline, lambda: self._placed_tables(tables), *tables.values())
        try:
            return (await self._arun(QUERY_ENTRY, _sql(blocks, packed, deadline), deadline)).value()
        finally:
            _release(*blocks.values())

    def exchange(
        self,
        entry: str,
        payload: Any,
        codec: int,
        accept: int,
        timeout: float | Deadline | None = None,
        params: Mapping[str, Any] | None = None,
        idempotent: bool | None = None,
        gone: Callable[[], object] | None = None,
    ) -> Answer:
        """`call` without encoding and decoding: bytes, a buffer or a `Block` in, the answer's own bytes out.

        timeout: seconds, or the `deadline` that the payload's shared memory was waited for with. gone: asked ten times
        a second while it waits; true takes the request back, and MoltCancelled is raised.
        """
        deadline = timeout if type(timeout) is Deadline else None
        ns = self._nanoseconds(timeout)
        arguments = _build(entry, codec, accept, payload, params, idempotent, ns)
        return self._run(entry, arguments, gone=gone, deadline=deadline).answer()

    async def aexchange(
        self,
        entry: str,
        payload: Any,
        codec: int,
        accept: int,
        timeout: float | Deadline | None = None,
        params: Mapping[str, Any] | None = None,
        idempotent: bool | None = None,
    ) -> Answer:
        """`exchange` for event loops."""
        deadline = self.deadline(timeout, entry)
        await self.aattach(False, deadline)
        arguments = _build(entry, codec, accept, payload, params, idempotent, deadline.timeout_ns)
        return (await self._arun(entry, arguments, deadline)).answer()

    def ping(self, timeout: float | None = None) -> float:
        """Seconds there and back of an empty request; raises `MoltError` when the worker does not answer."""
        start = time.perf_counter()
        self.call("echo", b"", "raw", timeout)
        return time.perf_counter() - start

    async def aping(self, timeout: float | None = None) -> float:
        """`ping` for event loops."""
        start = time.perf_counter()
        await self.acall("echo", b"", "raw", timeout)
        return time.perf_counter() - start

    def stats(self) -> dict[str, Any]:
        """What `molt-shm-stat --json` prints, read from the segment itself: it works while the worker hangs."""
        failure = Failure()
        # A session looks at the segment it has, which works while the worker hangs; without one it is looked for.
        session = self._session or NULL
        text = lib.molt_stat_json(session, attaching.text(self.shm), attaching.text(self.socket), *failure.args)
        if text == NULL:
            raise failure.error()
        try:
            return codecs.from_json(ffi.string(text))
        finally:
            lib.molt_string_free(text)

    def retries(self) -> dict[str, int]:
        """Counters of this process: requests `sent` (again included), `moved` to another worker since they never ran,
        run `again` though they may have run, and `refused` that, since the retry budget was used up."""
        if self._session is None:
            return dict.fromkeys(("sent", "moved", "again", "refused"), 0)
        counted = ffi.new("molt_retries *")
        lib.molt_count_retries(self._session, counted)
        return {"sent": counted.sent, "moved": counted.moved, "again": counted.again, "refused": counted.refused}

    async def astats(self) -> dict[str, Any]:
        """`stats` for event loops. It reads memory; a segment without a name may have to be asked for, in a thread."""
        if self.shm is not None:
            return self.stats()
        from asyncio import to_thread

        return await to_thread(self.stats)

    # -- life ----------------------------------------------------------------------------------------------------

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

    # -- the way of a request ------------------------------------------------------------------------------------

    def _run(
        self,
        entry: str,
        arguments: Request,
        call: Any = _call,
        gone: Callable[[], object] | None = None,
        deadline: Deadline | None = None,
    ) -> Reply:
        """Sends by that function of the C ABI, waits, and returns the answer; any other outcome is raised.

        gone: asked every tenth of a second whether the caller wants no answer any more. deadline: that of a call which
        has waited for something already; else its time begins here, and the library counts it.
        """
        session = self._session
        if session is None or deadline is not None:
            deadline = deadline or Deadline(arguments[-1], entry, gone)
            session = self.session(deadline)
            arguments = deadline.rest(session, arguments)
        breaker = self.breaker
        if not breaker.is_clear:
            breaker.admit(entry)
        reply = _take()
        c = reply.c
        try:
            interrupted = call(session, *arguments, c)
            while interrupted:  # Python's signal handlers run between two rounds of this loop
                if gone is not None and gone():
                    raise cancelled(entry)
                interrupted = _wait(session, c)
        except BaseException:  # KeyboardInterrupt, or what another handler raised
            if c.pending != NULL:
                lib.molt_cancel(session, c)
            reply.done()
            breaker.gave_up()
            raise
        if c.outcome:
            raise breaker.failed(reply.error(entry))
        if not breaker.is_clear:
            breaker.succeeded()
        return reply

    async def _arun(self, entry: str, arguments: Request, deadline: Deadline) -> Reply:
        from .aio import channel_of_running_loop

        breaker = self.breaker
        if not breaker.is_clear:
            breaker.admit(entry)
        try:
            reply = await channel_of_running_loop(self, self._channels).run(entry, arguments, deadline)
        except MoltError as error:
            breaker.failed(error)
            raise
        except BaseException:
            breaker.gave_up()
            raise
        if not breaker.is_clear:
            breaker.succeeded()
        return reply

    def block(self, size: int, timeout: float | Deadline | None = None) -> Block:
        """Shared memory to write a payload into, for `exchange`; whoever asked for it frees it. While a worker is being
        started it waits for that, as long as a call may take."""
        return self._placing(self.deadline(timeout), lambda: Block(self._unattached(), size))

    def place(self, payload: Any, timeout: float | Deadline | None = None) -> Any:
        """An Arrow payload for `exchange`: bytes of an IPC stream as they are, anything else placed in the arena; None is
        no body at all, for a SQL entry without inputs."""
        if payload is None or isinstance(payload, _BYTES):
            return self._placed(payload)
        return self._placing(self.deadline(timeout), lambda: self._placed(payload), payload)

    def _placing(self, deadline: Deadline, place: Callable[[], Any], *sources: Any) -> Any:
        """What `place` puts into the shared memory of a worker that serves: of its successor, if it goes just then."""
        self._present(deadline)
        while True:
            try:
                return place()
            except MoltUnavailable:
                if not self._may_place_again(deadline, sources):
                    raise
            self._present(deadline)

    async def _aplacing(self, deadline: Deadline, place: Callable[[], Any], *sources: Any) -> Any:
        """`_placing` for event loops."""
        await self.aattach(True, deadline)
        while True:
            try:
                return place()
            except MoltUnavailable:
                if not self._may_place_again(deadline, sources):
                    raise
            await self.aattach(True, deadline)

    def _may_place_again(self, deadline: Deadline, sources: tuple[Any, ...]) -> bool:
        """Whether there is time, and what was to be placed can be read again: a reader, which has no length, cannot."""
        return deadline.left_ns(self._unattached()) > 0 and all(hasattr(source, "__len__") for source in sources)

    def _placed(self, payload: Any) -> Any:
        """`place` once a worker is there: it waits for nothing."""
        if payload is None:
            return b""
        if isinstance(payload, _BYTES):
            return payload
        from .arrow import place

        return place(self._unattached(), payload)

    def _placed_tables(self, tables: Mapping[str, Any]) -> dict[str, Any]:
        from .arrow import place

        return {name: place(self._unattached(), table, name) for name, table in tables.items()}


def attach(
    shm: str | None = None, wait: float = 0.0, socket: str | None = None, *, timeout: float | None = None
) -> Client:
    """A client attached to the worker of the segment `shm` (else `/molt0`), or to the one that listens on `socket`, at
    once or within `wait` seconds. Raises `MoltUnavailable`.

    The other arguments are those of `Client`.
    """
    return Client(shm, wait, socket, timeout=timeout).__enter__()


def _sql(blocks: Mapping[str, Any], packed: bytes, deadline: Deadline) -> Request:
    return request.build_tables(QUERY_ENTRY, blocks, packed, request.IDEMPOTENT, deadline.timeout_ns)


def _release(*payloads: Any) -> None:
    """Frees the blocks among `payloads` when their request is over, not when a traceback lets go of them."""
    for payload in payloads:
        if type(payload) is Block:
            payload.free()
