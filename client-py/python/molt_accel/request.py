"""Requests: what goes over, as the arguments that `molt_call` and `molt_loop_submit` share."""

from __future__ import annotations

from . import codecs
from ._lib import NULL, ffi
from .block import Block
from .trace import context

TYPE_CHECKING = False  # see molt_accel/__init__.py
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

Request = tuple
"""entry .. timeout_ns, in the order of the C ABI. Keeps payload and params alive; blocks stay their owner's to keep."""

IDEMPOTENT, NO_RESEND = 1, 2
FLAGS: Mapping[bool | None, int] = {None: 0, True: IDEMPOTENT, False: NO_RESEND}

_NAMES_KEPT = 4096
_LONGEST_SECONDS = 9e8  # ~28 years: what fits int64 nanoseconds beside any clock
_names: dict[str, bytes] = {}


def build(
    entry: str,
    codec: int,
    accept: int,
    payload: Any,
    params: Mapping[str, Any] | None,
    idempotent: bool | None,
    timeout_ns: int,
    trace: bytes | None = None,
) -> Request:
    """A request whose payload is bytes, a buffer, or one `Block`. trace: see trace.py; None: what it says."""
    if trace is None:
        trace = context()
    name = _names.get(entry) or encoded(entry)
    packed = codecs.pack(params, "params") if params else b""
    if type(payload) is Block:
        return (
            name, len(name), packed, len(packed), NULL, 0, _pointers((payload,)), 1, b"", 0,
            trace, len(trace), codec, accept, FLAGS[idempotent], timeout_ns,
        )  # fmt: skip
    if type(payload) is not bytes:
        payload = ffi.from_buffer("uint8_t[]", payload)
    return (
        name, len(name), packed, len(packed), payload, len(payload), NULL, 0, b"", 0,
        trace, len(trace), codec, accept, FLAGS[idempotent], timeout_ns,
    )  # fmt: skip


def build_bytes(entry: str, codec: int, payload: bytes, idempotent: bool | None, timeout_ns: int) -> Request:
    """The arguments of `molt_call_bytes`: bytes with nothing beside them, answered in the same codec."""
    name = _names.get(entry) or encoded(entry)
    return (name, len(name), payload, len(payload), codec, FLAGS[idempotent], timeout_ns)


def build_tables(entry: str, tables: Mapping[str, Block], params: bytes, flags: int, timeout_ns: int) -> Request:
    """A request that hands over tables by name, each in a block of its own, and wants a table back."""
    name = _names.get(entry) or encoded(entry)
    names = b"\0".join(table.encode() for table in tables)
    blocks = tuple(tables.values())
    trace = context()
    return (
        name, len(name), params, len(params), NULL, 0, _pointers(blocks), len(blocks), names, len(names),
        trace, len(trace), codecs.ARROW, codecs.ARROW, flags, timeout_ns,
    )  # fmt: skip


def nanoseconds(seconds: float) -> int:
    """A time-out for the C ABI, where 0 and less mean "the default": never less than 1."""
    return max(1, int(min(seconds, _LONGEST_SECONDS) * 1e9))


def encoded(entry: str) -> bytes:
    """The entry's name as it travels."""
    name = entry.encode()
    if len(_names) < _NAMES_KEPT:  # names come from code; a program that makes them up must not grow for ever
        _names[entry] = name
    return name


def _pointers(blocks: Sequence[Block]) -> Any:
    return ffi.new("molt_block *[]", [block.pointer for block in blocks]) if blocks else NULL
