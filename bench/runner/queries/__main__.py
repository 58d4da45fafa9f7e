"""One run: `python -m bench.runner.queries SCALE FILE` writes what it has found as JSON, and says what it does."""

import json
import signal
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import molt_accel
import numpy as np
import pyarrow as pa

from bench.runner.queries import SCALES, Scale, data, engines, turns
from bench.runner.queries.questions import RESIDENT, SUMMARY

TINY, HUGE = "tiny", "huge"
ROOM = 256 << 20


def said(line: str) -> None:
    """Tells whoever watches."""
    print(line, flush=True)


def manifest(folder: str) -> Path:
    """Entries, whose plans are kept: the summary of a table that is handed over, and a row of two residents."""
    first = [{"name": name, "kind": "sql", "sql": f"select n from {name} limit 1"} for name in (TINY, HUGE)]
    summary = {"name": "summary", "kind": "sql", "input": "orders", "sql": SUMMARY.sql}
    put = {name: {"put": True} for name in (TINY, HUGE, "regions")}
    path = Path(folder) / "molt_exports.json"
    path.write_text(json.dumps({"abi_version": 1, "tables": put, "exports": [*first, summary]}))
    return path


def peers(found: dict[str, Any]) -> list[engines.Engine]:
    """Those that are installed."""
    there = []
    for kind in engines.PEERS:
        try:
            there.append(kind())
        except ImportError as reason:
            found["missing"][kind.name] = str(reason)
    return there


def handed(client: Any, others: list[engines.Engine], scale: Scale) -> list[dict[str, Any]]:
    """S6: a table of some size is handed over with each question."""
    every = [engines.MoltEntry(client, "summary"), engines.Molt(client), *others]
    for one in every[1:]:
        one.hold({"regions": data.regions()})
    out = []
    for rows, calls in scale.handed:
        said(f"{rows:,} rows handed over")
        given = {"orders": data.orders(rows)}
        asked = [one for one in every if rows <= one.most_handed]
        out += [{"rows": rows, **row} for row in turns.timed(SUMMARY, asked, given, scale.rounds, calls, said)]
    return out


def resident(client: Any, others: list[engines.Engine], scale: Scale) -> list[dict[str, Any]]:
    """S7: the tables lie there; the regions do since S6."""
    every = [engines.Molt(client), *others]
    tables = data.many(scale.resident) | {"orders": data.orders(scale.resident)}
    said(f"{scale.resident:,} rows resident, {sum(table.nbytes for table in tables.values()) / 1e6:.0f} MB")
    for one in every:
        one.hold(tables)
    out = []
    for question in RESIDENT:
        out += [{"rows": scale.resident, **row} for row in turns.timed(question, every, {}, scale.rounds, 1, said)]
    for name in tables:
        client.drop(name)
    return out


def handing(client: Any, scale: Scale) -> dict[str, Any]:
    """S5: a query over a table of 1 KiB and over a huge one, of which both want a row."""
    sizes = {TINY: 1 << 10, HUGE: scale.huge}
    for name, size in sizes.items():
        rows = np.arange(size // 8, dtype=np.int64)
        batches = pa.table({"n": rows}).to_batches(max_chunksize=1 << 20)
        client.put(name, pa.Table.from_batches(batches))
    took: dict[str, list[float]] = {name: [] for name in sizes}
    for turn in range(scale.hands + 1):
        for name, times in took.items():
            began = time.perf_counter()
            answer = client.call(name, {})
            if turn:  # the first makes the plan
                times.append((time.perf_counter() - began) * 1e6)
            if len(answer) != 1 or not 0 <= answer[0]["n"] < sizes[name] // 8:
                raise turns.Different(f"a row of {name} is {answer}")
    copied = {name: client.query(f"select n from {name} limit 1").metrics.copied_bytes for name in sizes}
    return {
        "bytes": sizes,
        "us": {name: median(times) for name, times in took.items()},
        "copied_bytes": copied,
    }


def main(scale: Scale) -> dict[str, Any]:
    """All three."""
    found: dict[str, Any] = {"missing": {}, "threads": engines.THREADS, "rounds": scale.rounds}
    with tempfile.TemporaryDirectory() as folder:
        others = peers(found)
        # Bounds of memory are everybody's own: molt takes a quarter of what is free, DuckDB four fifths, the others have none.
        with molt_accel.spawn(manifest(folder), arena=scale.arena, threads=engines.THREADS) as client:
            found["handed"] = handed(client, others, scale)
            found["resident"] = resident(client, others, scale)
            found["handing"] = handing(client, scale)
    return found


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # with the worker, which the end of main's block ends
    Path(sys.argv[2]).write_text(json.dumps(main(SCALES[sys.argv[1]])))
