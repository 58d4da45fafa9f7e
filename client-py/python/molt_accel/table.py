"""Tables out: read where they lie in shared memory, handed to any Arrow library through the C data interface."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Self

from . import forks
from ._lib import NULL, Failure, ffi, lib
from .answer import Metrics
from .arrow import SCHEMA_NAME, STREAM_NAME
from .errors import MoltClosed, MoltInternalError

if TYPE_CHECKING:
    import pandas
    import polars
    import pyarrow

_new_capsule = ctypes.pythonapi.PyCapsule_New
_new_capsule.restype = ctypes.py_object
_new_capsule.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]

# A capsule needs a destructor written in C. The library brings one and needs this function to look into the capsule.
lib.molt_capsule_setup(ffi.cast("void *", ctypes.cast(ctypes.pythonapi.PyCapsule_GetPointer, ctypes.c_void_p).value))
_STREAM_FREE = int(ffi.cast("uintptr_t", lib.molt_stream_capsule_free))
_SCHEMA_FREE = int(ffi.cast("uintptr_t", lib.molt_schema_capsule_free))

# Words of an ArrowSchema, see arrow.py.
_FORMAT, _NAME, _N_CHILDREN, _CHILDREN = 0, 1, 4, 5


class Table:
    """An Arrow table that lies in shared memory.

    Give it to any Arrow library (`polars.DataFrame(table)`, `pyarrow.table(table)`, DuckDB): they read the same bytes,
    nothing is copied. What was handed out stays valid after `close()` and after the client's end.
    """

    __slots__ = ("__weakref__", "_pointer", "metrics")

    # The table is freed when the last call that uses the pointer has returned, so `close` in one thread cannot pull it
    # from under another.
    _pointer: Any
    metrics: Metrics
    """What the request that made this table cost; `copied_bytes` is 0 where nothing had to be copied."""

    def __init__(self) -> None:
        raise TypeError("tables come from Client.query and Client.call(codec='arrow')")

    @classmethod
    def _take(cls, reply: Any) -> Table:
        """Takes over the bytes that a filled `molt_reply` holds."""
        failure = Failure()
        pointer = lib.molt_table_open(reply, *failure.args)
        if pointer == NULL:
            raise failure.error()
        table = cls.__new__(cls)
        table._pointer = ffi.gc(pointer, _freer(forks.generation))
        table.metrics = Metrics(reply)
        return table

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """The table as a stream of record batches (Arrow PyCapsule interface); any number of times."""
        stream = lib.molt_stream_alloc()
        if lib.molt_table_stream(self._open(), stream):
            # The capsule's destructor is the one way to free the struct.
            _new_capsule(int(ffi.cast("uintptr_t", stream)), STREAM_NAME, _STREAM_FREE)
            raise MoltInternalError("the table cannot be read as an Arrow stream")
        return _new_capsule(int(ffi.cast("uintptr_t", stream)), STREAM_NAME, _STREAM_FREE)

    def __arrow_c_schema__(self) -> object:
        """The schema (Arrow PyCapsule interface)."""
        capsule, _ = self._schema()
        return capsule

    def to_pyarrow(self) -> pyarrow.Table:
        """A `pyarrow.Table` over the same bytes."""
        import pyarrow

        return pyarrow.table(self)

    def to_pandas(self) -> pandas.DataFrame:
        """A `pandas.DataFrame` (needs pyarrow; pandas copies most types)."""
        return self.to_pyarrow().to_pandas()

    def to_polars(self) -> polars.DataFrame:
        """A `polars.DataFrame` over the same bytes where Polars has the type."""
        import polars

        return polars.DataFrame(self)

    @property
    def num_rows(self) -> int:
        """Rows."""
        return lib.molt_table_rows(self._open())

    @property
    def nbytes(self) -> int:
        """Bytes of shared memory that the table keeps."""
        return lib.molt_table_nbytes(self._open())

    @property
    def schema(self) -> Any:
        """A `pyarrow.Schema` where pyarrow is installed, else (name, Arrow C format string) for each column."""
        try:
            import pyarrow
        except ImportError:
            return self._columns()
        return pyarrow.schema(self)

    @property
    def address(self) -> tuple[int, int, int]:
        """Where the first data buffer lies, and the first and one-past-last address of the mapping it lies in."""
        span = ffi.new("uint64_t[2]")
        return lib.molt_table_address(self._open(), span, span + 1), span[0], span[1]

    def _schema(self) -> tuple[object, Any]:
        schema = lib.molt_schema_alloc()
        failed = lib.molt_table_schema(self._open(), schema)
        capsule = _new_capsule(int(ffi.cast("uintptr_t", schema)), SCHEMA_NAME, _SCHEMA_FREE)
        if failed:
            raise MoltInternalError("the table's schema cannot be read")
        return capsule, schema

    def _columns(self) -> list[tuple[str, str]]:
        capsule, schema = self._schema()
        words = ffi.cast("uintptr_t *", schema)
        children = ffi.cast("uintptr_t **", words[_CHILDREN])
        columns = [(_text(children[i][_NAME]), _text(children[i][_FORMAT])) for i in range(words[_N_CHILDREN])]
        del capsule  # until here it kept the struct
        return columns

    def _open(self) -> Any:
        pointer = self._pointer  # read once: another thread may close the table in between
        if pointer is None:
            raise MoltClosed("the table is closed")
        return pointer

    def close(self) -> None:
        """Lets go of the table; what was handed out keeps its own hold. A second close does nothing."""
        self._pointer = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __len__(self) -> int:
        return self.num_rows

    def __repr__(self) -> str:
        if self._pointer is None:
            return "<molt_accel.Table closed>"
        names = ", ".join(name for name, _ in self._columns())
        return f"<molt_accel.Table {self.num_rows} rows, {self.nbytes} bytes: {names}>"


def _freer(generation: int, free: Callable[[Any], None] = lib.molt_table_free) -> Callable[[Any], None]:
    """Frees a table in the process that made it; a forked child has inherited the view alone."""

    def freer(pointer: Any) -> None:
        if forks.generation == generation:
            free(pointer)

    return freer


def _text(address: int) -> str:
    return ffi.string(ffi.cast("char *", address)).decode() if address else ""
