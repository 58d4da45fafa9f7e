"""Tables in: anything that speaks the Arrow C data interface, written into a block once.

The structs are read by word because the C ABI passes them as untyped pointers; their layouts are fixed for ever by
https://arrow.apache.org/docs/format/CDataInterface.html (64-bit words: see the constants below).
"""

from __future__ import annotations

import ctypes
from itertools import count
from typing import Any

from ._lib import NULL, Failure, ffi, lib
from .block import Block
from .errors import MoltInvalidInput

STREAM_NAME, SCHEMA_NAME, ARRAY_NAME = b"arrow_array_stream", b"arrow_schema", b"arrow_array"

SCHEMA_WORDS, SCHEMA_RELEASE = 9, 7
ARRAY_WORDS, ARRAY_RELEASE = 10, 8
STREAM_WORDS, STREAM_RELEASE, STREAM_PRIVATE = 5, 3, 4

EINVAL = 22

_pointer_of = ctypes.pythonapi.PyCapsule_GetPointer
_pointer_of.restype = ctypes.c_void_p
_pointer_of.argtypes = [ctypes.py_object, ctypes.c_char_p]


def place(session: Any, source: Any, name: str = "payload", own_extents: bool = False) -> Block:
    """A block with the table of `source`: an object with `__arrow_c_stream__` or `__arrow_c_array__`, or the bytes of
    an Arrow IPC stream. `session` is the client's C pointer, `name` stands in errors. `own_extents`: the block shares
    none with others, so that the worker can take it over where it lies (bytes of a stream are copied then)."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        view = memoryview(source).cast("B")
        block = Block(session, len(view))
        block.view[:] = view
        return block
    if hasattr(source, "__arrow_c_stream__"):
        capsule = source.__arrow_c_stream__(None)
        return _place(session, ffi.cast("void *", _pointer_of(capsule, STREAM_NAME)), own_extents)
    if hasattr(source, "__arrow_c_array__"):
        schema, array = source.__arrow_c_array__(None)
        return _place_array(session, schema, array, own_extents)
    kind = type(source)
    raise MoltInvalidInput(
        f"{name} is a {kind.__module__}.{kind.__qualname__}, which is no Arrow table. hint: give an object with "
        "__arrow_c_stream__ or __arrow_c_array__ (polars, pandas, pyarrow, duckdb), or the bytes of an Arrow IPC stream"
    )


def _place(session: Any, stream: Any, own_extents: bool) -> Block:
    failure = Failure()
    pointer = lib.molt_table_place(session, stream, own_extents, *failure.args)
    if pointer == NULL:
        raise failure.error()
    return Block.adopt(pointer)


# -- one array as a stream of one -----------------------------------------------------------------------------------
# The library reads streams. A record batch that offers only `__arrow_c_array__` is served by these callbacks; the
# structs are moved out of their capsules, as the interface's "moving" section says: bytes over, source's release to 0.

_single: dict[int, tuple[Any, Any]] = {}  # private_data -> (schema, array) capsules, until the stream is released
_keys = count(1)


def _place_array(session: Any, schema: Any, array: Any, own_extents: bool) -> Block:
    key = next(_keys)
    _single[key] = schema, array
    stream = ffi.new("uintptr_t[]", STREAM_WORDS)
    for word, callback in enumerate((_get_schema, _get_next, _get_last_error, _release)):
        stream[word] = int(ffi.cast("uintptr_t", callback))
    stream[STREAM_PRIVATE] = key
    try:
        return _place(session, ffi.cast("void *", stream), own_extents)
    finally:
        _single.pop(key, None)


def _move(capsule: Any, name: bytes, words: int, release: int, out: Any) -> int:
    source = ffi.cast("uintptr_t *", _pointer_of(capsule, name))
    if source[release] == 0:
        return EINVAL  # moved before: the interface allows it once
    target = ffi.cast("uintptr_t *", out)
    for word in range(words):
        target[word] = source[word]
    source[release] = 0
    return 0


def _key(stream: Any) -> int:
    return ffi.cast("uintptr_t *", stream)[STREAM_PRIVATE]


@ffi.callback("int(void *, void *)", error=EINVAL)
def _get_schema(stream: Any, out: Any) -> int:
    return _move(_single[_key(stream)][0], SCHEMA_NAME, SCHEMA_WORDS, SCHEMA_RELEASE, out)


@ffi.callback("int(void *, void *)", error=EINVAL)
def _get_next(stream: Any, out: Any) -> int:
    if _move(_single[_key(stream)][1], ARRAY_NAME, ARRAY_WORDS, ARRAY_RELEASE, out):
        ffi.cast("uintptr_t *", out)[ARRAY_RELEASE] = 0  # a released array is the end of the stream
    return 0


@ffi.callback("char *(void *)")
def _get_last_error(stream: Any) -> Any:
    return NULL


@ffi.callback("void(void *)")
def _release(stream: Any) -> None:
    _single.pop(_key(stream), None)
    ffi.cast("uintptr_t *", stream)[STREAM_RELEASE] = 0
