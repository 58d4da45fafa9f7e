"""A client: what a program calls, and the way of a request."""

from __future__ import annotations

import time

from . import attaching, codecs, reply, request, trace
from ._lib import NULL, Failure, ffi, lib
from .block import Block
from .deadline import Deadline, cancelled
from .errors import MoltError
from .resident import ResidentTables

TYPE_CHECKING = False  # see molt_accel/__init__.py
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from threading import Event
    from typing import Any

    from .answer import Answer
    from .reply import Reply
    from .request import Request
    from .table import Table

QUERY_SECONDS = 30.0
"""Time-out of `query` where the call names none."""
QUERY_ENTRY = "molt.query"

_call, _call_bytes, _wait = lib.molt_call, lib.molt_call_bytes, lib.molt_wait
_take = reply.take
_build, _build_bytes, _trace = request.build, request.build_bytes, trace.context
MSGPACK, ARROW = codecs.MSGPACK, codecs.ARROW


class Client(ResidentTables):
    """A session with one worker. It attaches at first use; threads share it, forked children re-attach.

    Every blocking method has a twin that begins with `a` for event loops. Time-outs are seconds, as floats.
    """

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
