"""The fake client: Python functions in a worker's place."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Self

from . import codecs
from ._fake_tables import FakeTable, FakeTables, Free, Query, arrow
from .answer import Answer, Metrics
from .deadline import Deadline
from .errors import MoltUnknownEntry

Entry = Callable[[Any, Mapping[str, Any]], Any]
"""`f(payload, params)`: the decoded payload and the params in, the answer out; it may raise any `MoltError`."""


class Call(NamedTuple):
    """One request as an entry saw it."""

    entry: str
    payload: Any
    params: dict[str, Any]
    timeout: float | None


class Fake(FakeTables):
    """Stands in for a `Client`. Payloads are encoded and decoded as on their way to a worker, so what could not travel
    fails here as well; tables arrive as pyarrow tables."""

    where = "a fake worker"

    def __init__(
        self, entries: Mapping[str, Entry], query: Query | None = None, tables: Mapping[str, Any] | None = None
    ) -> None:
        self.entries = dict(entries)
        self.calls: list[Call] = []
        """What was asked, in order."""
        super().__init__(query, tables or {})

    def _note(self, entry: str, payload: Any, params: Mapping[str, Any] | None, timeout: float | None) -> None:
        given = codecs.unpack(codecs.pack(dict(params or {}), "params"))
        self.calls.append(Call(entry, payload, given, timeout))

    def call(
        self,
        entry: str,
        payload: Any = None,
        codec: str = "msgpack",
        timeout: float | None = None,
        params: Mapping[str, Any] | None = None,
        idempotent: bool | None = None,
        *,
        cancel: Any = None,
        traceparent: str | None = None,
    ) -> Any:
        """`Client.call`."""
        number = codecs.number(codec)
        body = self.place(payload) if number == codecs.ARROW else codecs.encode(number, payload)
        answer = self.exchange(entry, body, number, number, timeout, params, idempotent)
        decoded = _decoded(answer.codec, answer.body)
        return FakeTable(decoded) if answer.codec == codecs.ARROW else decoded

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
        """`Client.acall`."""
        return self.call(entry, payload, codec, timeout, params, idempotent)

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
        """`Client.exchange`."""
        known = self.entries.get(entry)
        seconds = timeout.seconds if isinstance(timeout, Deadline) else timeout
        self._note(
            entry, _decoded(codec, bytes(payload.view if isinstance(payload, _Block) else payload)), params, seconds
        )
        if known is None:
            raise MoltUnknownEntry(
                f"the fake worker has no entry {entry!r}. hint: there are {', '.join(sorted(self.entries)) or 'none'}",
                entry=entry,
            )
        call = self.calls[-1]
        result = known(call.payload, call.params)
        used = codecs.JSON if accept == codecs.ARROW and not hasattr(result, "__arrow_c_stream__") else accept
        body = self.place(result) if used == codecs.ARROW else codecs.encode(used, result)
        return Answer(used, body, Metrics(Free()))

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
        """`Client.aexchange`."""
        return self.exchange(entry, payload, codec, accept, timeout, params, idempotent)

    def ping(self, timeout: float | None = None) -> float:
        """`Client.ping`."""
        return 0.0

    async def aping(self, timeout: float | None = None) -> float:
        """`Client.aping`."""
        return 0.0

    def stats(self) -> dict[str, Any]:
        """`Client.stats`, as far as a fake has something to say: worker, entries, how many requests there were."""
        asked = [call.entry for call in self.calls]
        return {
            "worker": {"pid": os.getpid(), "state": "serving", "uptime_s": 0.0, "overdue": 0, "supervisor": None},
            "entries": [{"name": name, "calls": asked.count(name)} for name in self.entries],
            "sessions": [],
            "totals": {"requests": len(asked), "ok": len(asked)},
        }

    async def astats(self) -> dict[str, Any]:
        """`Client.astats`."""
        return self.stats()

    def retries(self) -> dict[str, int]:
        """`Client.retries`: nothing is ever sent again."""
        return {"sent": len(self.calls), "moved": 0, "again": 0, "refused": 0}

    def deadline(
        self,
        timeout: float | Deadline | None = None,
        entry: str | None = None,
        gone: Callable[[], object] | None = None,
    ) -> Deadline:
        """`Client.deadline`."""
        return timeout if isinstance(timeout, Deadline) else Deadline.of(timeout, entry)

    def session(self, timeout: float | Deadline | None = None) -> Fake:
        """There is no session to be had, and none is missed."""
        return self

    async def aattach(self, present: bool = False, timeout: float | Deadline | None = None) -> None:
        """Nothing to attach to."""

    def block(self, size: int, timeout: float | Deadline | None = None) -> _Block:
        """Private memory in place of a block of shared memory."""
        return _Block(size)

    def place(self, payload: Any, timeout: float | Deadline | None = None) -> bytes:
        """A table as the bytes of an Arrow IPC stream."""
        import pyarrow as pa

        if payload is None or isinstance(payload, (bytes, bytearray, memoryview)):
            return bytes(payload or b"")
        whole = arrow(payload)
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, whole.schema) as stream:
            stream.write_table(whole)
        return sink.getvalue().to_pybytes()

    def close(self) -> None:
        """Nothing to end."""

    async def aclose(self) -> None:
        """Nothing to end."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self.close()


class _Block:
    def __init__(self, size: int) -> None:
        self.view = memoryview(bytearray(size))

    def free(self) -> None:
        pass


def _decoded(codec: int, body: bytes) -> Any:
    if codec != codecs.ARROW:
        return codecs.decode(codec, body)
    return arrow(body) if body else None
