"""What one resident table costs that many Django processes read: by proportional set size, which counts a page that
several processes map once."""

import sys
from pathlib import Path

from . import child, usage, worker
from .child import Child, until
from .errors import BenchError
from .owned import Owned
from .paths import DJANGO, ROOT
from .worker import Worker

MIB = 1 << 20
ROOM = 64 * MIB  # of the arena, beside what is put: a body may have half of it
PATIENCE = 120.0


def measure(owned: Owned, logs: Path, mib: int, processes: int) -> dict:
    """The growth of all processes together, worker included, when they have read every byte of the table, in MB."""
    table = mib * MIB
    engine = worker.start(owned, logs / "worker-memory.log", ("--arena", str(2 * table + ROOM)))
    folder = engine.folder
    readers = [_start(owned, engine, logs, "read", str(folder / f"reader-{number}")) for number in range(processes)]
    try:
        for number, reader in enumerate(readers):
            _said(folder / f"reader-{number}.ready", reader)
        before = [usage.own(pid) for pid in (engine.pid, *(reader.pid for reader in readers))]
        # A process of its own, which is gone when memory is looked at: what it read and made counts for nobody.
        putting = _start(owned, engine, logs, "put", str(table))
        if status := putting.wait(PATIENCE):
            raise BenchError(f"{putting} ended with status {status}. Its last lines:\n{putting.tail()}")
        (folder / "read").touch()
        sums = {_said(folder / f"reader-{number}.sum", reader) for number, reader in enumerate(readers)}
        if len(sums) != 1:
            raise BenchError(f"the readers have read different bytes: {sorted(sums)}")
        after = [usage.own(pid) for pid in (engine.pid, *(reader.pid for reader in readers))]
    finally:
        for reader in readers:
            owned.end(reader)
        worker.stop(owned, engine)
    rss, pss = ([now[index] - then[index] for then, now in zip(before, after, strict=True)] for index in (0, 1))
    return {
        "table_mb": table / usage.MB,
        "processes": processes,
        "reader_rss_mb": sum(rss[1:]) / processes,  # what each maps: the whole table
        "reader_pss_mb": sum(pss[1:]) / processes,  # its share of it
        "worker_pss_mb": pss[0],
        "all_pss_mb": sum(pss),
        "tables": sum(pss) * usage.MB / table,
    }


def _start(owned: Owned, engine: Worker, logs: Path, *words: str) -> Child:
    env = {"MOLT_SHM": engine.shm, "DJANGO_SETTINGS_MODULE": "demo.settings", "PYTHONPATH": f"{ROOT}:{DJANGO}"}
    command = [sys.executable, "-m", "bench.runner.reader", *words]
    return child.start(owned, f"a Django process that will {words[0]}", command, logs / "reader.log", env, cwd=DJANGO)


def _said(path: Path, reader: Child) -> str:
    """What a reader has written; it writes beside, and renames."""
    until(path.exists, f"that {reader} writes {path.name}", PATIENCE, reader)
    return path.read_text()
