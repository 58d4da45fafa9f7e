"""A client: one session of this process with one worker, shared by its threads and event loops."""

from __future__ import annotations

import time
from _thread import RLock

from . import attaching, codecs, forks, reply, request, trace
from ._lib import NULL, Failure, ffi, lib
from .block import Block
from .breaker import CLOSED, Breaker
from .errors import MoltCancelled, MoltClosed, MoltError
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
QUERY_SECONDS = 30.0
"""Time-out of `query` where the call names none."""
QUERY_ENTRY = "molt.query"

_RESTART_SECONDS = 5.0
"""How long a payload that is to be placed in shared memory waits for a worker that is being started."""
_call, _call_bytes, _wait = lib.molt_call, lib.molt_call_bytes, lib.molt_wait
_take = reply.take
_build, _build_bytes, _trace = request.build, request.build_bytes, trace.context
MSGPACK, ARROW = codecs.MSGPACK, codecs.ARROW


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
        not there yet. `timeout`: for calls and entries that name none (else 5 s). `on_state`: called with the client,
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
        self._session: Any = None
        self._lock = RLock()  # a signal handler may call while its thread attaches
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
        if codec == "msgpack":
            number = MSGPACK
            body = codecs.pack(payload)
        else:
            number = codecs.number(codec)
            body = codecs.encode(number, payload) if number != ARROW else self.place(payload)
        ns = self._default_ns if timeout is None else request.nanoseconds(timeout)
        try:
            gone = None if cancel is None else cancel.is_set
            trace = _trace(traceparent)
            if type(body) is bytes and not params and not trace:
                return self._run(entry, _build_bytes(entry, number, body, idempotent, ns), _call_bytes, gone).value()
            arguments = _build(entry, number, number, body, params, idempotent, ns, trace)
            return self._run(entry, arguments, gone=gone).value()
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
        await self.aattach(number == ARROW)
        body = codecs.encode(number, payload) if number != ARROW else self.place(payload)
        ns = self._default_ns if timeout is None else request.nanoseconds(timeout)
        try:
            arguments = _build(entry, number, number, body, params, idempotent, ns, trace)
            return (await self._arun(entry, arguments)).value()
        finally:
            if number == ARROW:
                _release(body)

    def query(
        self,
        sql: str,
        tables: Mapping[str, Any] | None = None,
        params: Mapping[str, Any] | None = None,
        timeout: float | None = None,
    ) -> Table:
        """Runs read-only SQL on `tables`: anything Arrow, placed in shared memory once. `$x` reads params["x"]."""
        blocks = self._place(tables)
        try:
            return self._run(QUERY_ENTRY, self._sql(sql, blocks, params, timeout)).value()
        finally:
            _release(*blocks.values())

    async def aquery(
        self,
        sql: str,
        tables: Mapping[str, Any] | None = None,
        params: Mapping[str, Any] | None = None,
        timeout: float | None = None,
    ) -> Table:
        """`query` for event loops."""
        await self.aattach(True)
        blocks = self._place(tables)
        try:
            return (await self._arun(QUERY_ENTRY, self._sql(sql, blocks, params, timeout))).value()
        finally:
            _release(*blocks.values())

    def exchange(
        self,
        entry: str,
        payload: Any,
        codec: int,
        accept: int,
        timeout: float | None = None,
        params: Mapping[str, Any] | None = None,
        idempotent: bool | None = None,
        gone: Callable[[], object] | None = None,
    ) -> Answer:
        """`call` without encoding and decoding: bytes, a buffer or a `Block` in, the answer's own bytes out.

        gone: asked ten times a second while it waits; true takes the request back, and MoltCancelled is raised.
        """
        ns = self._default_ns if timeout is None else request.nanoseconds(timeout)
        return self._run(entry, _build(entry, codec, accept, payload, params, idempotent, ns), gone=gone).answer()

    async def aexchange(
        self,
        entry: str,
        payload: Any,
        codec: int,
        accept: int,
        timeout: float | None = None,
        params: Mapping[str, Any] | None = None,
        idempotent: bool | None = None,
    ) -> Answer:
        """`exchange` for event loops."""
        await self.aattach()
        ns = self._default_ns if timeout is None else request.nanoseconds(timeout)
        return (await self._arun(entry, _build(entry, codec, accept, payload, params, idempotent, ns))).answer()

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
        """`stats` for event loops; it only reads memory, so it never waits."""
        return self.stats()

    # -- life ----------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Ends the session. Calls that run in other threads finish; tables stay valid; a second close does nothing."""
        with self._lock:
            self._closed = True
            session, self._session = self._session, None
            channels, self._channels = self._channels, {}
        for kept in channels.values():
            if (channel := kept()) is not None:
                channel.close_soon()
        del session

    async def aclose(self) -> None:
        """`close` for event loops."""
        self.close()

    def __enter__(self) -> Self:
        self.session()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        await self.aattach()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        state = "closed" if self._closed else "attached" if self._session is not None else "not attached"
        return f"<molt_accel.Client {self.where} {state}>"

    def session(self) -> Any:
        """The C pointer of the session, attached if it was not yet."""
        return self._session if self._session is not None else self._attach()

    def _attach(self) -> Any:
        breaker = self.breaker
        if not breaker.is_clear:  # before the lock: who holds it may be waiting for a worker
            breaker.admit()
        with self._lock:
            if self._closed:
                raise MoltClosed(f"the client of {self.where} is closed. hint: attach() makes a new one")
            if self._session is None:
                wait = self.wait if breaker.state is CLOSED else 0.0
                try:
                    session = ffi.gc(attaching.attach(self.shm, self.socket, wait), lib.molt_close)
                except MoltError as error:
                    raise breaker.failed(error) from None
                except BaseException:
                    breaker.gave_up()
                    raise
                if self._session is None:  # still: nobody came between by way of a signal
                    self._session = session
                if not breaker.is_clear:
                    breaker.succeeded()
            return self._session

    def _state_changed(self, state: str, reason: str) -> None:
        if self._on_state is not None:
            self._on_state(self, state, reason)
            return
        import logging

        level = logging.WARNING if state != CLOSED else logging.INFO
        logging.getLogger("molt_accel.client").log(level, "%s: circuit breaker %s: %s", self.where, state, reason)

    async def aattach(self, present: bool = False) -> None:
        """`session` for event loops: attaching may wait for a worker, so it does that in a thread.

        present: also wait for the successor of a worker that has gone, to place a payload in its arena."""
        if self._session is None or (present and not lib.molt_is_attached(self._session)):
            from asyncio import to_thread

            await to_thread(self._present if present else self.session)

    def _present(self) -> Any:
        """The session, with a worker that serves: waits for one that is being started."""
        session = self.session()
        if not lib.molt_is_attached(session):
            breaker = self.breaker
            if not breaker.is_clear:
                breaker.admit()
            try:
                attaching.reattach(session, _RESTART_SECONDS)
            except MoltError as error:
                raise breaker.failed(error) from None
            except BaseException:
                breaker.gave_up()
                raise
            if not breaker.is_clear:
                breaker.succeeded()
        return session

    def _forked(self) -> None:
        """In a forked child: forget the parent's session without ending it; the next call attaches anew."""
        session, self._session = self._session, None
        self.breaker.reset()
        self._lock = RLock()  # the copy may be locked by a thread that the child does not have
        channels, self._channels = self._channels, {}
        for kept in channels.values():
            if (channel := kept()) is not None:
                channel.forget()
        if session is not None:
            ffi.gc(session, None)
            lib.molt_forked(session)

    # -- the way of a request ------------------------------------------------------------------------------------

    def _run(
        self, entry: str, arguments: Request, call: Any = _call, gone: Callable[[], object] | None = None
    ) -> Reply:
        """Sends by that function of the C ABI, waits, and returns the answer; any other outcome is raised.

        gone: asked every tenth of a second whether the caller wants no answer any more.
        """
        session = self._session
        if session is None:
            session = self._attach()
        breaker = self.breaker
        if not breaker.is_clear:
            breaker.admit(entry)
        reply = _take()
        c = reply.c
        try:
            interrupted = call(session, *arguments, c)
            while interrupted:  # Python's signal handlers run between two rounds of this loop
                if gone is not None and gone():
                    raise MoltCancelled("the caller wants no answer any more", entry=entry)
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

    async def _arun(self, entry: str, arguments: Request) -> Reply:
        from .aio import channel_of_running_loop

        breaker = self.breaker
        if not breaker.is_clear:
            breaker.admit(entry)
        try:
            reply = await channel_of_running_loop(self, self._channels).run(entry, arguments)
        except MoltError as error:
            breaker.failed(error)
            raise
        except BaseException:
            breaker.gave_up()
            raise
        if not breaker.is_clear:
            breaker.succeeded()
        return reply

    def block(self, size: int) -> Block:
        """Shared memory to write a payload into, for `exchange`; whoever asked for it frees it. While a worker is being
        started it waits for that."""
        return Block(self._present(), size)

    def place(self, payload: Any) -> Any:
        """An Arrow payload for `exchange`: bytes of an IPC stream as they are, anything else placed in the arena; None is
        no body at all, for a SQL entry without inputs."""
        if payload is None:
            return b""
        if isinstance(payload, (bytes, bytearray, memoryview)):
            return payload
        from .arrow import place

        return place(self._present(), payload)

    def _place(self, tables: Mapping[str, Any] | None) -> dict[str, Any]:
        if not tables:
            return {}
        from .arrow import place

        session = self._present()
        return {name: place(session, table, name) for name, table in tables.items()}

    def _sql(
        self, sql: str, blocks: Mapping[str, Any], params: Mapping[str, Any] | None, timeout: float | None
    ) -> Request:
        packed = codecs.pack({"sql": sql, "params": params or {}}, "params")
        ns = request.nanoseconds(QUERY_SECONDS if timeout is None else timeout)
        return request.build_tables(QUERY_ENTRY, blocks, packed, request.IDEMPOTENT, ns)


def attach(
    shm: str | None = None, wait: float = 0.0, socket: str | None = None, *, timeout: float | None = None
) -> Client:
    """A client attached to the worker of the segment `shm` (else `/molt0`), or to the one that listens on `socket`, at
    once or within `wait` seconds. Raises `MoltUnavailable`.

    The other arguments are those of `Client`.
    """
    client = Client(shm, wait, socket, timeout=timeout)
    client.session()
    return client


def _release(*payloads: Any) -> None:
    """Frees the blocks among `payloads` when their request is over, not when a traceback lets go of them."""
    for payload in payloads:
        if type(payload) is Block:
            payload.free()
