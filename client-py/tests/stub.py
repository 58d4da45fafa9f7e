"""A client without a worker for the tests of molt_accel.django: it records what is sent and answers what it is told."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, NamedTuple

from molt_accel import codecs
from molt_accel.answer import Answer, Metrics
from molt_accel.deadline import Deadline
from molt_accel.errors import MoltError

COST = SimpleNamespace(
    queue_us=1, exec_us=2, allocs=3, alloc_bytes=4, copied_bytes=0, queue_depth=0, plans=0, flags=0, table_age=0
)


class Sent(NamedTuple):
    entry: str
    payload: bytes
    in_block: bool
    codec: int
    accept: int
    timeout: float | None
    params: Any
    idempotent: bool | None


class StubBlock:
    """Private memory in place of a block."""

    live = made = 0

    def __init__(self, size: int) -> None:
        self.view = memoryview(bytearray(size))
        StubBlock.live += 1
        StubBlock.made += 1

    def free(self) -> None:
        StubBlock.live -= 1


class StubClient:
    def __init__(self) -> None:
        self.sent: list[Sent] = []
        self.answer: object = {"ok": True}
        self.session_error: MoltError | None = None

    def deadline(self, timeout: float | None = None, entry: str | None = None, gone: Any = None) -> Deadline:
        return Deadline.of(timeout, entry)

    def session(self, deadline: Deadline | None = None) -> object:
        if self.session_error is not None:
            raise self.session_error
        return self

    async def aattach(self, present: bool = False, deadline: Deadline | None = None) -> None:
        self.session()

    def block(self, size: int, deadline: Deadline | None = None) -> StubBlock:
        return StubBlock(size)

    def place(self, payload: Any, deadline: Deadline | None = None) -> Any:
        return b"" if payload is None else payload

    def exchange(
        self,
        entry: str,
        payload: Any,
        codec: int,
        accept: int,
        deadline: Deadline,
        params: Any,
        idempotent: Any,
        gone: Any = None,
    ) -> Answer:
        in_block = isinstance(payload, StubBlock)
        data = bytes(payload.view) if in_block else payload
        self.sent.append(Sent(entry, data, in_block, codec, accept, deadline.seconds, params, idempotent))
        if isinstance(self.answer, MoltError):
            raise self.answer
        used = codecs.JSON if accept == codecs.ARROW else accept
        return Answer(accept, codecs.encode(used, self.answer), Metrics(COST))

    async def aexchange(self, *args: Any) -> Answer:
        return self.exchange(*args)
