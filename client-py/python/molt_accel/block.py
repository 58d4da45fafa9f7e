"""Blocks: writable bytes in the arena, filled in place and handed over without a copy."""

from __future__ import annotations

from . import forks
from ._lib import NULL, Failure, ffi, lib

TYPE_CHECKING = False  # see molt_accel/__init__.py
if TYPE_CHECKING:
    from typing import Any


class Block:
    """`size` bytes of shared memory. Free it when the request that carries it is under way or given up."""

    __slots__ = ("_generation", "_view", "pointer", "size")

    def __init__(self, client: Any, size: int) -> None:
        """A new block; `client` is the session's C pointer. MoltBusy or MoltTooLarge when the arena has no room."""
        failure = Failure()
        pointer = lib.molt_block_new(client, size, *failure.args)
        if pointer == NULL:
            self.pointer = None
            raise failure.error()
        self._adopt(pointer, size)

    @classmethod
    def adopt(cls, pointer: Any, size: int = 0) -> Block:
        """Takes over a block that the library made."""
        block = cls.__new__(cls)
        block._adopt(pointer, size)
        return block

    def _adopt(self, pointer: Any, size: int) -> None:
        self.pointer = pointer
        self.size = size
        self._view: memoryview | None = None
        self._generation = forks.generation

    @property
    def view(self) -> memoryview:
        """The bytes, writable, where they lie. Not to be kept beyond the block."""
        if self._view is None:
            data = ffi.buffer(lib.molt_block_data(self.pointer), self.size) if self.size else bytearray()
            self._view = memoryview(data)
        return self._view

    def shrink(self, size: int) -> None:
        """Cuts the block to the bytes really written."""
        if size != self.size:
            lib.molt_block_resize(self.pointer, size)
            self.size, self._view = size, None

    def free(self) -> None:
        """Drops this reference; a request in flight keeps its own. Does nothing the second time."""
        pointer, view, self.pointer, self._view = self.pointer, self._view, None, None
        if view is not None:
            view.release()
        if pointer is not None and self._generation == forks.generation:
            lib.molt_block_free(pointer)

    def __del__(self) -> None:
        if self.pointer is not None:
            self.free()
