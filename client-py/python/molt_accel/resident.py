"""Resident tables: published once under a name, read by every process in the same bytes."""

from __future__ import annotations

from itertools import count
from os import getpid
from time import monotonic

from . import codecs, request
from .errors import MoltError

TYPE_CHECKING = False  # see molt_accel/__init__.py
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from os import PathLike
    from typing import Any

    from .block import Block
    from .reply import Reply
    from .request import Request
    from .table import Table

UNLIMITED = 9e8
"""Seconds that `put` and `load` may take where the call names none: they end when the table is there."""
_PUT, _TABLE, _TABLES, _DROP, _LOAD = "molt.put", "molt.table", "molt.tables", "molt.drop", "molt.load"
_LOADS = "molt.loads"
_PROGRESS_SECONDS = 0.1
"""How often a load is asked how far it is."""
_ASK_SECONDS = 2.0

_numbers = count(1)


class LoadProgress:
    """How far a load is."""

    __slots__ = ("bytes", "elapsed", "rows", "state", "total_bytes")

    def __init__(self, state: str, rows: int, bytes: int, total_bytes: int, elapsed: float) -> None:
        self.state = state
        """"reading", then "placing" (in shared memory), at last "done"."""
        self.rows = rows
        """Rows read."""
        self.bytes = bytes
        """Bytes of the file that were read; of Parquet in proportion to its rows."""
        self.total_bytes = total_bytes
        """Bytes of the file, or of the folder's files; 0 for a load that was over before it was asked for."""
        self.elapsed = elapsed
        """Seconds."""

    def __repr__(self) -> str:
        return f"<molt_accel.LoadProgress {self.state}: {self.rows} rows, {self.bytes} of {self.total_bytes} bytes>"


class TableInfo:
    """What the worker says of one version of a resident table."""

    __slots__ = (
        "age",
        "bytes",
        "lost",
        "name",
        "readers",
        "resident",
        "retired",
        "rows",
        "schema",
        "source",
        "version",
    )

    def __init__(self, listed: dict[str, Any]) -> None:
        self.name: str = listed["name"]
        self.version: int = listed["version"]
        """Counts up with every table that is published, whatever its name."""
        self.rows: int = listed["rows"]
        self.bytes: int = listed["bytes"]
        """Bytes of shared memory; of a table that stays on disk, of its files."""
        self.schema: Sequence[tuple[str, str]] = [(name, kind) for name, kind in listed["schema"]]
        """Columns: name and Arrow type."""
        self.readers: dict[int, int] = {pid: views for pid, views in listed["readers"]}
        """Processes that have it open: pid, and how many views they hold."""
        self.source: str | None = listed["source"]
        """The file that it was loaded from, and is loaded from again when the worker has died; None: a client put it, and is
        lost then."""
        self.retired: bool = listed["retired"]
        """Replaced or dropped; its bytes go when the last reader does."""
        self.lost: str | None = listed.get("lost")
        """Why it is not here any more: a worker had it that died. It is listed until somebody puts, loads or drops it."""
        self.age: float = listed.get("age_s", 0.0)  # a worker from before an upgrade does not say
        """Seconds since its rows were published, when this was asked; of a lost one, since it was lost."""
        self.resident: bool = listed.get("resident", True)
        """It lies in shared memory. False: its files stay on disk, and each statement that names it reads them."""

    def __repr__(self) -> str:
        state = ", lost" if self.lost else ", retired" if self.retired else "" if self.resident else ", on disk"
        return (
            f"<molt_accel.TableInfo {self.name!r} version {self.version}: {self.rows} rows, {self.bytes} bytes{state}>"
        )


class ResidentTables:
    """The part of a client that publishes tables and finds them."""

    if TYPE_CHECKING:

        def session(self) -> Any: ...
        async def aattach(self, present: bool = False) -> None: ...
        def _run(self, entry: str, arguments: Request, *, gone: Callable[[], object] | None = None) -> Reply: ...
        async def _arun(self, entry: str, arguments: Request) -> Reply: ...

    def put(self, name: str, data: Any, timeout: float | None = None) -> TableInfo:
        """Publishes `data` (anything Arrow) under `name`, for every process, in place of what had the name.

        The table is written into shared memory once and stays where it was written. Who reads the former version reads
        on; its bytes go when the last reader does. MoltBusy when the arena has no room for both.
        """
        block = self._own(data, name)
        try:
            return TableInfo(self._run(_PUT, _about(_PUT, {"name": name}, timeout, UNLIMITED, block)).value())
        finally:
            block.free()

    async def aput(self, name: str, data: Any, timeout: float | None = None) -> TableInfo:
        """`put` for event loops."""
        await self.aattach()
        block = self._own(data, name)
        try:
            return TableInfo((await self._arun(_PUT, _about(_PUT, {"name": name}, timeout, UNLIMITED, block))).value())
        finally:
            block.free()

    def table(self, name: str, timeout: float | None = None) -> Table:
        """The table of that name as it is now, read where it lies: the same bytes in every process.

        It stays valid and unchanged until it and all that was made of it are gone, whatever becomes of the name.
        """
        return self._run(_TABLE, _about(_TABLE, {"name": name}, timeout)).table()

    async def atable(self, name: str, timeout: float | None = None) -> Table:
        """`table` for event loops."""
        await self.aattach()
        return (await self._arun(_TABLE, _about(_TABLE, {"name": name}, timeout))).table()

    def tables(self, timeout: float | None = None) -> list[TableInfo]:
        """What there is, by name; versions that were replaced are listed for as long as somebody reads them, and tables that
        went with a worker which died until they are there again or dropped."""
        return [TableInfo(listed) for listed in self._run(_TABLES, _about(_TABLES, {}, timeout)).value()]

    async def atables(self, timeout: float | None = None) -> list[TableInfo]:
        """`tables` for event loops."""
        await self.aattach()
        return [TableInfo(listed) for listed in (await self._arun(_TABLES, _about(_TABLES, {}, timeout))).value()]

    def drop(self, name: str, timeout: float | None = None) -> bool:
        """Takes the name away; False: nothing had it. Who reads the table reads on."""
        return bool(self._run(_DROP, _about(_DROP, {"name": name}, timeout)).value())

    async def adrop(self, name: str, timeout: float | None = None) -> bool:
        """`drop` for event loops."""
        await self.aattach()
        return bool((await self._arun(_DROP, _about(_DROP, {"name": name}, timeout))).value())

    def load(
        self,
        name: str,
        path: str | PathLike[str],
        timeout: float | None = None,
        *,
        resident: bool = True,
        progress: Callable[[LoadProgress], object] | None = None,
    ) -> TableInfo:
        """Publishes a file (Parquet, CSV, JSON lines, Arrow), or a folder of Parquet files, that the worker reads; `path`
        as this process sees it.

        resident: False leaves Parquet on disk: SQL reads what it needs of it each time, so it may be larger than memory.
        progress: called some ten times a second with a `LoadProgress`, the last time when the table is there. What it
        raises ends the load.
        """
        ticket = _ticket(progress)
        arguments = _about(_LOAD, _file(name, path, resident, ticket), timeout, UNLIMITED)
        if progress is None:
            return TableInfo(self._run(_LOAD, arguments).value())
        watch = _Watch(ticket, progress)

        def ask() -> None:
            try:
                loads = self._run(_LOADS, _about(_LOADS, {}, _ASK_SECONDS)).value()
            except MoltError:
                return  # the load's own call says what is wrong
            watch.tell(loads)

        return watch.done(TableInfo(self._run(_LOAD, arguments, gone=ask).value()))

    async def aload(
        self,
        name: str,
        path: str | PathLike[str],
        timeout: float | None = None,
        *,
        resident: bool = True,
        progress: Callable[[LoadProgress], object] | None = None,
    ) -> TableInfo:
        """`load` for event loops."""
        await self.aattach()
        ticket = _ticket(progress)
        arguments = _about(_LOAD, _file(name, path, resident, ticket), timeout, UNLIMITED)
        if progress is None:
            return TableInfo((await self._arun(_LOAD, arguments)).value())
        from asyncio import create_task, wait

        watch = _Watch(ticket, progress)
        load = create_task(self._arun(_LOAD, arguments))
        try:
            while not (await wait({load}, timeout=_PROGRESS_SECONDS))[0]:
                try:
                    loads = (await self._arun(_LOADS, _about(_LOADS, {}, _ASK_SECONDS))).value()
                except MoltError:
                    continue  # the load's own call says what is wrong
                watch.tell(loads)
        finally:
            load.cancel()  # nothing, where it is done
        return watch.done(TableInfo((await load).value()))

    def _own(self, data: Any, name: str) -> Block:
        from .arrow import place

        return place(self._present(), data, name, own_extents=True)


class _Watch:
    """Tells one load's caller how far it is."""

    def __init__(self, ticket: str, progress: Callable[[LoadProgress], object]) -> None:
        self.ticket = ticket
        self.progress = progress
        self.total_bytes = 0
        self.began = monotonic()

    def tell(self, loads: list[dict[str, Any]]) -> None:
        for now in loads:
            if now["ticket"] == self.ticket:
                self.total_bytes = now["total_bytes"]
                elapsed = now["elapsed_ms"] / 1000
                self.progress(LoadProgress(now["state"], now["rows"], now["bytes"], self.total_bytes, elapsed))

    def done(self, info: TableInfo) -> TableInfo:
        elapsed = monotonic() - self.began
        self.progress(LoadProgress("done", info.rows, self.total_bytes, self.total_bytes, elapsed))
        return info


def _ticket(progress: object) -> str:
    """What the worker calls this load by, where somebody wants to know of it."""
    return "" if progress is None else f"{getpid()}-{next(_numbers)}"


def _file(name: str, path: str | PathLike[str], resident: bool, ticket: str) -> dict[str, Any]:
    from os import path as paths

    about: dict[str, Any] = {"name": name, "path": paths.abspath(path), "resident": resident}
    return {**about, "ticket": ticket} if ticket else about


def _about(
    entry: str,
    params: dict[str, Any],
    timeout: float | None,
    unless: float | None = None,
    block: Block | None = None,
) -> Request:
    seconds = unless if timeout is None else timeout
    ns = 0 if seconds is None else request.nanoseconds(seconds)
    codec = codecs.MSGPACK if block is None else codecs.ARROW
    accept = codecs.ARROW if entry == _TABLE else codecs.MSGPACK
    return request.build(entry, codec, accept, b"" if block is None else block, params, None, ns)
