"""What one resident table costs that many Django processes read, against a copy in each: by proportional set size, which counts
a page that several processes map once.

One way after the other, so that both never take memory at once. The copies are Polars data frames loaded from an Arrow file,
as a team without shared memory would hold the table.
"""

import shutil
import sys
import tempfile
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import psutil

from . import child, usage, worker
from .child import Child, until
from .errors import BenchError
from .owned import Owned
from .paths import DJANGO, ROOT
from .say import Say, quiet
from .tables import Table
from .targets import Verdict

MIB = 1 << 20
ROOM = 64 * MIB  # of the arena, beside what is put: a body may have half of it
OWN = 150 * MIB  # of each process, the table aside
SPARED = 0.85
"""The share of the available memory that may be taken."""
PATIENCE = 240.0
FRUGAL = {"POLARS_MAX_THREADS": "1", "ARROW_DEFAULT_MEMORY_POOL": "system"}
"""So that a copy costs no more than it must: pyarrow's own allocator keeps up to a quarter beside it."""
SETUP = 5.0
SECONDS_A_GIB = 1.2
"""Writing, placing or reading a table once."""


@dataclass(frozen=True)
class Plan:
    """How large the table is, and how many read it."""

    mib: int = 2048
    processes: int = 8


QUICK = Plan(256, 4)
CHECK = Plan(96, 2)
"""Every path once; the figures mean little."""


def planned_seconds(plan: Plan) -> float:
    """What it takes, for the progress line."""
    return SETUP + plan.processes + plan.mib / 1024 * (4 + 2 * plan.processes) * SECONDS_A_GIB


def fitting(plan: Plan, memory: int, shm: int) -> tuple[Plan, str | None]:
    """The plan, its table halved until this machine has room for it, and the reason where it was; bytes that are free."""

    def needed(mib: int) -> tuple[int, int]:
        table = mib * MIB
        arena = 2 * table + ROOM
        return max(arena, plan.processes * table) + plan.processes * OWN, arena

    mib = plan.mib
    while mib > 1 and (needed(mib)[0] > SPARED * memory or needed(mib)[1] > shm):
        mib //= 2
    if mib == plan.mib:
        return plan, None
    wanted, arena = needed(plan.mib)
    return replace(plan, mib=mib), (
        f"{mib} MiB instead of {plan.mib}: {plan.processes} copies need {wanted / usage.MB:,.0f} MB of memory and the arena "
        f"{arena / usage.MB:,.0f} MB of /dev/shm; {SPARED * memory / usage.MB:,.0f} and {shm / usage.MB:,.0f} MB may be taken"
    )


def measure(owned: Owned, logs: Path, plan: Plan, say: Say = quiet) -> dict:
    """The growth of all processes together when they have read every byte of the table, in MB, by each way."""
    fitted, why = fitting(plan, psutil.virtual_memory().available, shutil.disk_usage(worker.SHM).free)
    say(f"{fitted.processes} processes read one table of {fitted.mib:,} MiB")
    in_arena = shared(owned, logs, fitted)
    say(f"{fitted.processes} processes with a copy each")
    copied = copies(owned, logs, fitted)
    return {
        "mib": fitted.mib, "processes": fitted.processes, "scaled_down": why, "shared": in_arena, "copies": copied,
    }  # fmt: skip


def shared(owned: Owned, logs: Path, plan: Plan) -> dict:
    """All read the table that lies in the arena; the worker's memory counts."""
    table = plan.mib * MIB
    engine = worker.start(owned, logs / "worker-memory.log", ("--arena", str(2 * table + ROOM)))
    try:
        readers = Readers(owned, logs, engine.folder, "read", plan.processes, engine.shm)
        before = readers.looked(engine.pid)
        # A process of its own, which is gone when memory is looked at: what it read and made counts for nobody.
        alone(owned, logs, ["put", str(table)], engine.shm)
        readers.finish()
        after = readers.looked(engine.pid)
        readers.end()
    finally:
        worker.stop(owned, engine)
    return {"way": "one table resident in the arena", **growth(before, after, table)}


def copies(owned: Owned, logs: Path, plan: Plan) -> dict:
    """Each loads the table into memory of its own."""
    table = plan.mib * MIB
    folder = owned.start(
        lambda: Path(tempfile.mkdtemp(prefix="molt-bench-")), partial(shutil.rmtree, ignore_errors=True)
    )
    try:
        alone(owned, logs, ["write", str(table), str(folder / "table.arrow")])
        readers = Readers(owned, logs, folder, "copy", plan.processes)
        before = readers.looked()
        readers.finish()
        after = readers.looked()
        readers.end()
    finally:
        owned.end(folder)
    return {"way": "a Polars data frame in each process", **growth(before, after, table)}


Looked = tuple[list[tuple[float, float]], tuple[float, float]]
"""Resident and proportional set size of each reader, and of the worker; MB."""


def growth(before: Looked, after: Looked, table: int) -> dict:
    """What has been added between two looks."""
    (readers, engine), (then_readers, then_engine) = after, before
    count = len(readers)
    rss, pss = (sum(now[at] - then[at] for then, now in zip(then_readers, readers, strict=True)) for at in (0, 1))
    worker_pss = engine[1] - then_engine[1]
    return {
        "table_mb": table / usage.MB,
        "processes": count,
        "reader_rss_mb": rss / count,  # what each maps: the whole table
        "reader_pss_mb": pss / count,  # its share of it
        "worker_pss_mb": worker_pss,
        "all_pss_mb": pss + worker_pss,
        "tables": (pss + worker_pss) * usage.MB / table,
    }


class Readers:
    """Django processes that are there before the table is, and then read it (bench/runner/reader.py)."""

    def __init__(self, owned: Owned, logs: Path, folder: Path, way: str, count: int, shm: str | None = None) -> None:
        self._owned, self._folder = owned, folder
        self._all = [process(owned, logs, [way, str(folder / f"reader-{number}")], shm) for number in range(count)]
        for number, reader in enumerate(self._all):
            said(folder / f"reader-{number}.ready", reader)

    def looked(self, engine: int | None = None) -> Looked:
        """What they hold now."""
        return [usage.own(one.pid) for one in self._all], (0.0, 0.0) if engine is None else usage.own(engine)

    def finish(self) -> None:
        """Gives the word, and waits until all have read the same."""
        (self._folder / "read").touch()
        sums = {said(self._folder / f"reader-{number}.sum", reader) for number, reader in enumerate(self._all)}
        if len(sums) != 1:
            raise BenchError(f"the readers have read different bytes: {sorted(sums)}")

    def end(self) -> None:
        """Ends them; they stay until then, with what they hold."""
        for one in self._all:
            self._owned.end(one)


def process(owned: Owned, logs: Path, words: list[str], shm: str | None = None) -> Child:
    """A Django process."""
    env = {"DJANGO_SETTINGS_MODULE": "demo.settings", "PYTHONPATH": f"{ROOT}:{DJANGO}", **FRUGAL}
    env |= {} if shm is None else {"MOLT_SHM": shm}
    command: child.Command = [sys.executable, "-m", "bench.runner.reader", *words]
    return child.start(owned, f"a Django process that will {words[0]}", command, logs / "reader.log", env, cwd=DJANGO)


def alone(owned: Owned, logs: Path, words: list[str], shm: str | None = None) -> None:
    """Runs a process to its end."""
    running = process(owned, logs, words, shm)
    status = running.wait(PATIENCE)
    owned.end(running)
    if status:
        raise BenchError(f"{running} ended with status {status}. Its last lines:\n{running.tail()}")


def said(path: Path, reader: Child) -> str:
    """What a reader has written; it writes beside, and renames."""
    until(path.exists, f"that {reader} writes {path.name}", PATIENCE, reader)
    return path.read_text()


def tables(found: dict) -> list[Table]:
    """A row a way."""
    rows = [
        [
            one["way"],
            *(f"{one[key]:,.0f}" for key in ("all_pss_mb", "reader_rss_mb", "reader_pss_mb", "worker_pss_mb")),
            f"{one['tables']:.2f}",
        ]
        for one in (found["shared"], found["copies"])
    ]
    columns = ["way", "MB all together", "MB each maps", "MB each its share", "MB in the worker", "tables"]
    title = (
        f"Memory that {found['processes']} Django processes add to read {found['mib']:,} MiB (proportional set size)"
    )
    if found["scaled_down"]:
        title = f"{title}; {found['scaled_down']}"
    return [Table(title, columns, rows, 1)]


def verdicts(found: dict) -> list[Verdict]:
    """The shared table costs one table, whoever reads it."""
    what = f"{found['processes']} processes that read one resident table: memory added, in tables"
    return [Verdict("memory", what, found["shared"]["tables"], 1.25, 1.05, "x")]
