"""Resident tables and SQL of the fake client: pyarrow tables in this process, a function in place of the statement."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from time import monotonic
from typing import Any, Self

from .answer import Metrics
from .client import QUERY_ENTRY
from .errors import MoltInvalidInput, MoltUnknownEntry
from .resident import LoadProgress, TableInfo

Query = Callable[[str, Mapping[str, Any], Mapping[str, Any]], Any]
"""`f(sql, tables, params)`: pyarrow tables by their names in, anything Arrow out."""


class Free:
    """What a request costs that nobody worked on."""

    queue_us = exec_us = allocs = alloc_bytes = copied_bytes = queue_depth = plans = flags = table_age = 0


class FakeTable:
    """Stands in for a `Table`: the same interface over a pyarrow table."""

    def __init__(self, table: Any) -> None:
        self._table = table
        self.metrics = Metrics(Free())

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        return self._table.__arrow_c_stream__(requested_schema)

    def __arrow_c_schema__(self) -> object:
        return self._table.schema.__arrow_c_schema__()

    def to_pyarrow(self) -> Any:
        """`Table.to_pyarrow`."""
        return self._table

    def to_pandas(self) -> Any:
        """`Table.to_pandas`."""
        return self._table.to_pandas()

    def to_polars(self) -> Any:
        """`Table.to_polars`."""
        import polars

        return polars.DataFrame(self)

    @property
    def num_rows(self) -> int:
        """`Table.num_rows`."""
        return self._table.num_rows

    @property
    def nbytes(self) -> int:
        """`Table.nbytes`."""
        return self._table.nbytes

    @property
    def schema(self) -> Any:
        """`Table.schema`."""
        return self._table.schema

    def close(self) -> None:
        """Nothing to let go of."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __len__(self) -> int:
        return self.num_rows


class Version:
    """One version of a resident table."""

    def __init__(self, number: int, table: Any, source: str | None) -> None:
        self.number = number
        self.table = table
        self.source = source
        self.since = monotonic()

    def info(self, name: str) -> TableInfo:
        """What the worker would say of it."""
        table = self.table
        return TableInfo(
            {
                "name": name,
                "version": self.number,
                "rows": table.num_rows,
                "bytes": table.nbytes,
                "schema": [(field.name, str(field.type)) for field in table.schema],
                "readers": [],
                "source": self.source,
                "retired": False,
                "age_s": monotonic() - self.since,
            }
        )


class FakeTables:
    """The part of the fake that has tables: what was put, and what a statement is answered with."""

    def __init__(self, query: Query | None, tables: Mapping[str, Any]) -> None:
        self._query = query
        self._resident: dict[str, Version] = {}
        self._versions = 0
        for name, table in tables.items():
            self._publish(name, table)

    def _note(self, entry: str, payload: Any, params: Mapping[str, Any] | None, timeout: float | None) -> None:
        raise NotImplementedError

    def query(
        self,
        sql: str,
        tables: Mapping[str, Any] | None = None,
        params: Mapping[str, Any] | None = None,
        timeout: float | None = None,
        *,
        cancel: Any = None,
    ) -> FakeTable:
        """`Client.query`, answered by `fake(query=...)`."""
        given = {name: arrow(table) for name, table in (tables or {}).items()}
        self._note(QUERY_ENTRY, {"sql": sql, "tables": given}, params, timeout)
        if self._query is None:
            raise MoltUnknownEntry(
                "the fake worker runs no SQL. hint: testing.fake(query=f), with f(sql, tables, params)",
                entry=QUERY_ENTRY,
            )
        resident = {name: version.table for name, version in self._resident.items()}
        return FakeTable(arrow(self._query(sql, {**resident, **given}, dict(params or {}))))

    async def aquery(
        self,
        sql: str,
        tables: Mapping[str, Any] | None = None,
        params: Mapping[str, Any] | None = None,
        timeout: float | None = None,
    ) -> FakeTable:
        """`Client.aquery`."""
        return self.query(sql, tables, params, timeout)

    def put(self, name: str, data: Any, timeout: float | None = None, *, cancel: Any = None) -> TableInfo:
        """`Client.put`."""
        self._note("molt.put", arrow(data), {"name": name}, timeout)
        return self._publish(name, data)

    async def aput(self, name: str, data: Any, timeout: float | None = None) -> TableInfo:
        """`Client.aput`."""
        return self.put(name, data, timeout)

    def table(self, name: str, timeout: float | None = None) -> FakeTable:
        """`Client.table`."""
        self._note("molt.table", b"", {"name": name}, timeout)
        if name not in self._resident:
            known = ", ".join(sorted(self._resident)) or "none"
            raise MoltInvalidInput(
                f"there is no table {name!r}; the tables are {known}", entry="molt.table", status=404
            )
        return FakeTable(self._resident[name].table)

    async def atable(self, name: str, timeout: float | None = None) -> FakeTable:
        """`Client.atable`."""
        return self.table(name, timeout)

    def tables(self, timeout: float | None = None) -> list[TableInfo]:
        """`Client.tables`."""
        self._note("molt.tables", b"", {}, timeout)
        return [version.info(name) for name, version in sorted(self._resident.items())]

    async def atables(self, timeout: float | None = None) -> list[TableInfo]:
        """`Client.atables`."""
        return self.tables(timeout)

    def drop(self, name: str, timeout: float | None = None) -> bool:
        """`Client.drop`."""
        self._note("molt.drop", b"", {"name": name}, timeout)
        return self._resident.pop(name, None) is not None

    async def adrop(self, name: str, timeout: float | None = None) -> bool:
        """`Client.adrop`."""
        return self.drop(name, timeout)

    def load(
        self,
        name: str,
        path: Any,
        timeout: float | None = None,
        *,
        resident: bool = True,
        progress: Callable[[LoadProgress], object] | None = None,
        cancel: Any = None,
    ) -> TableInfo:
        """`Client.load`: the file is read here, by pyarrow."""
        self._note("molt.load", b"", {"name": name, "path": str(path), "resident": resident}, timeout)
        info = self._publish(name, _read(name, Path(path)), str(path))
        if progress is not None:
            progress(LoadProgress("done", info.rows, info.bytes, info.bytes, 0.0))
        return info

    async def aload(
        self,
        name: str,
        path: Any,
        timeout: float | None = None,
        *,
        resident: bool = True,
        progress: Callable[[LoadProgress], object] | None = None,
    ) -> TableInfo:
        """`Client.aload`."""
        return self.load(name, path, timeout, resident=resident, progress=progress)

    def _publish(self, name: str, data: Any, source: str | None = None) -> TableInfo:
        self._versions += 1
        version = self._resident[name] = Version(self._versions, arrow(data), source)
        return version.info(name)


def arrow(data: Any) -> Any:
    """Anything Arrow, or the bytes of an IPC stream, as a pyarrow table; else MoltInvalidInput, as of a client."""
    import pyarrow as pa

    if isinstance(data, (bytes, bytearray, memoryview)):
        return pa.ipc.open_stream(data).read_all()
    if isinstance(data, pa.Table):
        return data
    if not hasattr(data, "__arrow_c_stream__") and not hasattr(data, "__arrow_c_array__"):
        kind = type(data)
        raise MoltInvalidInput(f"the table is a {kind.__module__}.{kind.__qualname__}, which is no Arrow table")
    return pa.table(data)


def _read(name: str, path: Path) -> Any:
    """A file, or a folder of Parquet files."""
    import pyarrow as pa
    from pyarrow import csv, json, parquet

    readers: dict[str, Callable[[Path], Any]] = {
        ".csv": csv.read_csv,
        ".json": json.read_json,
        ".jsonl": json.read_json,
        ".ndjson": json.read_json,
        ".arrow": _read_arrow,
    }
    try:
        return readers.get(path.suffix.lower(), parquet.read_table)(path)
    except (OSError, pa.ArrowException) as reason:
        raise MoltInvalidInput(f"table {name!r}: cannot load {path}: {reason}", entry="molt.load") from None


def _read_arrow(path: Path) -> Any:
    import pyarrow as pa

    with pa.memory_map(str(path)) as source:
        return pa.ipc.open_file(source).read_all()
