"""Answers: the struct that the library fills, kept and used again, and what becomes of it."""

from __future__ import annotations

from . import codecs, forks
from ._lib import NULL, ffi, lib
from .answer import Answer, Metrics
from .errors import MoltError, error

TYPE_CHECKING = False  # see molt_accel/__init__.py
if TYPE_CHECKING:
    from typing import Any

    from .table import Table

_free = lib.molt_reply_free
_bytes = ffi.unpack
_decode_msgpack = codecs.unpack

MSGPACK, ARROW = codecs.MSGPACK, codecs.ARROW


class Reply:
    """One `molt_reply`. Whoever takes one ends it by exactly one of the methods below."""

    __slots__ = ("c", "generation")

    def __init__(self) -> None:
        self.c = ffi.new("molt_reply *")
        self.generation = forks.generation

    def value(self) -> Any:
        """The answer, decoded: a `Table` for Arrow, else a Python object."""
        c = self.c
        codec = c.codec
        if codec == ARROW:
            return self.table()
        length = c.len
        data = _bytes(c.data, length) if length else b""
        _free(c)
        _spare.append(self)
        return _decode_msgpack(data) if codec == MSGPACK else codecs.decode(codec, data)

    def answer(self) -> Answer:
        """The answer's bytes, undecoded (also of a table), with its metrics."""
        c = self.c
        answer = Answer(c.codec, _bytes(c.data, c.len) if c.len else b"", Metrics(c))
        self.done()
        return answer

    def table(self) -> Table:
        """The answer as a table, read where it lies; the table takes over what keeps its bytes alive."""
        from .table import Table

        table = Table._take(self.c)
        self.done()
        return table

    def error(self, entry: str | None) -> MoltError:
        """The exception for an outcome other than ok."""
        c = self.c
        message = _bytes(c.data, c.len).decode("utf-8", "replace") if c.len else f"no message (outcome {c.outcome})"
        details = _bytes(c.details, c.details_len) if c.details_len else None
        failed = error(c.outcome, message, entry=entry, status=c.status, details=details)
        self.done()
        return failed

    def done(self) -> None:
        """Gives back what the answer holds; the struct is used again."""
        _free(self.c)
        _spare.append(self)

    def __del__(self) -> None:
        # Reached with something held only when an exception came between answer and use.
        if self.generation == forks.generation and self.c.hold != NULL:
            _free(self.c)


_spare: list[Reply] = []  # list.pop and append are atomic: any thread takes and returns


def take() -> Reply:
    """A reply struct that nobody else uses."""
    try:
        return _spare.pop()
    except IndexError:
        return Reply()
