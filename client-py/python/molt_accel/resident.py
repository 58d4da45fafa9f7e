"""Resident tables: published once under a name, read by every process in the same bytes."""

from __future__ import annotations

from itertools import count
from os import getpid
from time import monotonic

from . import codecs, request
from .deadline import Deadline
from .errors import MoltCancelled, MoltError
from .placing import Placing

TYPE_CHECKING = False  # see molt_accel/__init__.py
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from os import PathLike
    from threading import Event
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


class ResidentTables(Placing):
    """The part of a client that publishes tables and finds them."""

    if TYPE_CHECKING:

        def _run(
            self,
            entry: str,
            arguments: Request,
            *,
            gone: Callable[[], object] | None = None,
            deadline: Deadline | None = None,
        ) -> Reply: ...
        async def _arun(self, entry: str, arguments: Request, deadline: Deadline) -> Reply: ...

    def put(self, name: str, data: Any, timeout: float | None = None, *, cancel: Event | None = None) -> TableInfo:
        """Publishes `data` (anything Arrow) under `name`, for every process, in place of what had the name.

        The table is written into shared memory once and stays where it was written. Who reads the former version reads
        on; its bytes go when the last reader does. MoltBusy when the arena has no room for both. cancel: as in
        `Client.call`; what was published by then stays.
        """
        gone = None if cancel is None else cancel.is_set
        deadline = Deadline(self._nanoseconds(UNLIMITED if timeout is None else timeout), _PUT, gone)
        block = self._placing(deadline, lambda: self._own(data, name), data)
        try:
            arguments = _about(_PUT, {"name": name}, deadline.timeout_ns, block)
            return TableInfo(self._run(_PUT, arguments, gone=gone, deadline=deadline).value())
        finally:
            block.free()

    async def aput(self, name: str, data: Any, timeout: float | None = None) -> TableInfo:
        """`put` for event loops. Cancelling the task cancels it in the worker."""
        deadline = Deadline(self._nanoseconds(UNLIMITED if timeout is None else timeout), _PUT)
        block = await self._aplacing(deadline, lambda: self._own(data, name), data)
        try:
            arguments = _about(_PUT, {"name": name}, deadline.timeout_ns, block)
            return TableInfo((await self._arun(_PUT, arguments, deadline)).value())
        finally:
            block.free()

    def table(self, name: str, timeout: float | None = None) -> Table:
        """The table of that name as it is now, read where it lies: the same bytes in every process.

        It stays valid and unchanged until it and all that was made of it are gone, whatever becomes of the name.
        """
        return self._run(_TABLE, _about(_TABLE, {"name": name}, self._nanoseconds(timeout))).table()

    async def atable(self, name: str, timeout: float | None = None) -> Table:
        """`table` for event loops."""
        return (await self._ask(_TABLE, _about(_TABLE, {"name": name}, self._nanoseconds(timeout)))).table()

    def tables(self, timeout: float | None = None) -> list[TableInfo]:
        """What there is, by name; versions that were replaced are listed for as long as somebody reads them, and tables that
        went with a worker which died until they are there again or dropped."""
        listed = self._run(_TABLES, _about(_TABLES, {}, self._nanoseconds(timeout))).value()
        return [TableInfo(table) for table in listed]

    async def atables(self, timeout: float | None = None) -> list[TableInfo]:
        """`tables` for event loops."""
        listed = (await self._ask(_TABLES, _about(_TABLES, {}, self._nanoseconds(timeout)))).value()
        return [TableInfo(table) for table in listed]

    def drop(self, name: str, timeout: float | None = None) -> bool:
        """Takes the name away; False: nothing had it. Who reads the table reads on."""
        return bool(self._run(_DROP, _about(_DROP, {"name": name}, self._nanoseconds(timeout))).value())

    async def adrop(self, name: str, timeout: float | None = None) -> bool:
        """`drop` for event loops."""
        return bool((await self._ask(_DROP, _about(_DROP, {"name": name}, self._nanoseconds(timeout)))).value())

    def load(
        self,
        name: str,
        path: str | PathLike[str],
        timeout: float | None = None,
        *,
        resident: bool = True,
        progress: Callable[[LoadProgress], object] | None = None,
        cancel: Event | None = None,
    ) -> TableInfo:
        """Publishes a file (Parquet, CSV, JSON lines, Arrow), or a folder of Parquet files, that the worker reads; `path`
        as this process sees it.

        resident: False leaves Parquet on disk: SQL reads what it needs of it each time, so it may be larger than memory.
        progress: called some ten times a second with a `LoadProgress`, the last time when the table is there. What it
        raises ends the load. cancel: as in `Client.call`.
        """
        ticket = _ticket(progress)
        arguments = _about(
            _LOAD, _file(name, path, resident, ticket), self._nanoseconds(UNLIMITED if timeout is None else timeout)
        )
        gone = None if cancel is None else cancel.is_set
        if progress is None:
            return TableInfo(self._run(_LOAD, arguments, gone=gone).value())
        watch, deadline = _Watch(ticket, progress), Deadline(arguments[-1], _LOAD)

        def ask() -> object:
            try:
                watch.tell(self._run(_LOADS, self._how_far(deadline), gone=gone).value())
            except MoltCancelled:
                return True
            except MoltError:
                pass  # the load's own call says what is wrong
            return gone is not None and gone()

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
        """`load` for event loops. Cancelling the task cancels it in the worker."""
        ticket = _ticket(progress)
        arguments = _about(
            _LOAD, _file(name, path, resident, ticket), self._nanoseconds(UNLIMITED if timeout is None else timeout)
        )
        if progress is None:
            return TableInfo((await self._ask(_LOAD, arguments)).value())
        from asyncio import create_task, wait

        watch, deadline = _Watch(ticket, progress), Deadline(arguments[-1], _LOAD)
        load = create_task(self._ask(_LOAD, arguments))
        try:
            while not (await wait({load}, timeout=_PROGRESS_SECONDS))[0]:
                try:
                    watch.tell((await self._ask(_LOADS, self._how_far(deadline))).value())
                except MoltError:
                    continue  # the load's own call says what is wrong
        finally:
            load.cancel()  # nothing, where it is done
        return watch.done(TableInfo((await load).value()))

    async def _ask(self, entry: str, arguments: Request) -> Reply:
        """`_run` for event loops."""
        deadline = Deadline(arguments[-1], entry)
        await self.aattach(False, deadline)
        return await self._arun(entry, arguments, deadline)

    def _how_far(self, deadline: Deadline) -> Request:
        """The question how far loads are, which is not waited for beyond the load's own deadline."""
        left = max(1, deadline.left_ns(self._unattached()))
        return _about(_LOADS, {}, min(left, self._nanoseconds(_ASK_SECONDS)))

    def _own(self, data: Any, name: str) -> Block:
        """The table in shared memory that the worker can take over, once a worker is there."""
        from .arrow import place

        return place(self._unattached(), data, name, own_extents=True)


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


def _about(entry: str, params: dict[str, Any], timeout_ns: int, block: Block | None = None) -> Request:
    codec = codecs.MSGPACK if block is None else codecs.ARROW
    accept = codecs.ARROW if entry == _TABLE else codecs.MSGPACK
    return request.build(entry, codec, accept, b"" if block is None else block, params, None, timeout_ns)
