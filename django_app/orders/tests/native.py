"""Calls a native entry through its C ABI (engine/entry/src/abi.rs) without a worker."""

from __future__ import annotations

import ctypes
import json
import os
from functools import cache
from pathlib import Path
from typing import Any

import msgpack

OK, MSGPACK, JSON = 0, 1, 2


class Span(ctypes.Structure):
    _fields_ = [("ptr", ctypes.c_void_p), ("len", ctypes.c_size_t)]

    @classmethod
    def of(cls, data: bytes) -> Span:
        return cls(ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p), len(data))

    def bytes(self) -> bytes:
        return ctypes.string_at(self.ptr, self.len)


class Failure(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint32) for name in ("size", "outcome", "status", "reserved")]
    _fields_ += [("message", Span), ("details", Span)]


Cancelled = ctypes.CFUNCTYPE(ctypes.c_uint32, ctypes.c_void_p)
Reserve = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_size_t)
Write = ctypes.CFUNCTYPE(ctypes.c_uint32, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
Fail = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.POINTER(Failure))


class Request(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint32) for name in ("size", "codec", "accept", "reserved")]
    _fields_ += [("payload", Span), ("params", Span), ("remaining_ns", ctypes.c_uint64)]
    _fields_ += [("host", ctypes.c_void_p), ("cancelled", Cancelled)]


class Reply(ctypes.Structure):
    _fields_ = [("size", ctypes.c_uint32), ("reserved", ctypes.c_uint32), ("host", ctypes.c_void_p)]
    _fields_ += [("reserve", Reserve), ("write", Write), ("fail", Fail)]
    _fields_ += [("allocs", ctypes.c_uint64), ("alloc_bytes", ctypes.c_uint64)]


Call = ctypes.CFUNCTYPE(ctypes.c_uint32, ctypes.POINTER(Request), ctypes.POINTER(Reply))


class EntryDef(ctypes.Structure):
    _fields_ = [("name", Span), ("codecs", ctypes.c_uint32), ("reserved", ctypes.c_uint32), ("call", Call)]


class EntryTable(ctypes.Structure):
    _fields_ = [("abi_version", ctypes.c_uint32), ("reserved", ctypes.c_uint32)]
    _fields_ += [("entries", ctypes.POINTER(EntryDef)), ("count", ctypes.c_size_t)]


@cache
def entries() -> dict[str, EntryDef]:
    """The entries of libdemo_entries.so, as `cargo build --release` left it."""
    root = Path(__file__).parents[3]
    target = Path(os.environ.get("CARGO_TARGET_DIR", root / "target"))
    library = ctypes.CDLL(str(root / target / "release" / "libdemo_entries.so"))
    library.molt_entries_v1.restype = ctypes.POINTER(EntryTable)
    table = library.molt_entries_v1().contents
    assert table.abi_version == 1
    return {entry.name.bytes().decode(): entry for entry in table.entries[: table.count]}


def call(name: str, body: bytes, codec: int = JSON) -> tuple[int, Any]:
    """The outcome with the parsed answer, or with `{"error": message, **details}`."""
    pieces: list[bytes] = []
    failures: list[dict[str, Any]] = []

    def write(_host: int, data: int, length: int) -> int:
        pieces.append(ctypes.string_at(data, length))
        return 0

    def fail(_host: int, failure: ctypes._Pointer[Failure]) -> None:
        told = failure.contents
        failures.append({"error": told.message.bytes().decode(), **msgpack.unpackb(told.details.bytes())})

    callbacks = Cancelled(lambda _host: 0), Reserve(lambda _host, _total: None), Write(write), Fail(fail)
    cancelled, *answering = callbacks
    request = Request(ctypes.sizeof(Request), codec, 0, 0, Span.of(body), Span(None, 0), 0, None, cancelled)
    reply = Reply(ctypes.sizeof(Reply), 0, None, *answering, 0, 0)
    outcome = entries()[name].call(ctypes.byref(request), ctypes.byref(reply))
    if outcome != OK:
        (failure,) = failures
        return outcome, failure
    answer = b"".join(pieces)
    return OK, json.loads(answer) if codec == JSON else msgpack.unpackb(answer)
