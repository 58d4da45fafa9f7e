"""S5, S6 and S7: questions over tables beside DuckDB, Polars, pandas and datafusion-python. `queries/` does it."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

from . import child
from .errors import BenchError
from .owned import Owned
from .paths import ROOT
from .queries import ENVIRONMENT, SCALES
from .say import Say, quiet
from .tables import Table, size
from .targets import Verdict

MOST_SECONDS = 3600.0
HANDED_ROWS = 10_000  # of S6
RESIDENT_ROWS = 10_000_000  # of S7
HUGE_BYTES = 1 << 30  # of S5
GRACE = 90.0  # a question that is being asked is answered first; then the worker is ended


def measure(owned: Owned, logs: Path, scale: str, say: Say = quiet) -> dict:
    """What `python -m bench.runner.queries SCALE` finds, in a process of its own: it wants its own threads."""
    out = logs / "queries.json"
    out.unlink(missing_ok=True)
    command: child.Command = [sys.executable, "-m", "bench.runner.queries", scale, out]
    running = child.start(owned, "the questions", command, logs / "queries.log", ENVIRONMENT, cwd=ROOT, grace=GRACE)
    status = running.follow(say, MOST_SECONDS)
    if status:
        raise BenchError(f"{running} ended with status {status}. Its last lines:\n{running.tail()}")
    owned.end(running)
    return json.loads(out.read_text())


def planned_seconds(scale: str) -> float:
    """How long it takes, for the progress line."""
    return SCALES[scale].seconds


def tables(found: dict) -> list[Table]:
    """S5, S6 and S7: milliseconds of a question, a column for each engine."""

    def rows(part: list[dict], label: str) -> tuple[list[str], list[list[str]]]:
        names = list(dict.fromkeys(row["engine"] for row in part))
        grouped: dict[str, dict[str, dict]] = {}
        for row in part:
            grouped.setdefault(label.format(**row), {})[row["engine"]] = row
        return names, [[what, *(_median(mine.get(name)) for name in names)] for what, mine in grouped.items()]

    threads = f"{found['threads']} threads each, ms: median of {found['rounds']} rounds (least to most)"
    out = []
    for part, title, label in (
        ("handed", "Filter, join, group and sort a table that is handed over each time", "{rows:,} rows"),
        ("resident", "Questions over {rows:,} resident rows", "{question}"),
    ):
        names, lines = rows(found[part], label)
        out.append(Table(f"{title.format(**found[part][0])}; {threads}", ["", *names], lines, 1))
    handing = found["handing"]
    lines = [
        [name, size(length), f"{handing['us'][name]:,.0f}", str(handing["copied_bytes"][name])]
        for name, length in handing["bytes"].items()
    ]
    title = "Handing a resident table to a query that wants one row"
    out.append(Table(title, ["table", "size", "us", "bytes copied"], lines, 1))
    missing = [[name, why] for name, why in found["missing"].items()]
    return out + ([Table("Engines that are missing", ["engine", "why"], missing, 2)] if missing else [])


def _median(row: dict | None) -> str:
    return "–" if row is None else f"{row['ms']:,.2f} ({row['from_ms']:,.2f} to {row['to_ms']:,.2f})"


def verdicts(found: dict) -> list[Verdict]:
    """S5, S6 and S7; of S7 the question that fares worst. What was asked of less than the target says is called so."""
    handing = found["handing"]
    us, huge = handing["us"], handing["bytes"]["huge"]
    what = f"a resident table of {size(huge)}{less(huge, HUGE_BYTES, size)} to a query"
    out = [
        Verdict(
            "S5", f"{what}, against one of {size(handing['bytes']['tiny'])}", us["huge"] / us["tiny"], 2, 1.05, "x"
        ),
        Verdict("S5", f"{what}: bytes copied", handing["copied_bytes"]["huge"], None, 0, " B"),
    ]
    handed = _times(found["handed"], "rows").get(HANDED_ROWS, {})
    if {"DuckDB", "Polars"} <= set(handed):
        what = f"{HANDED_ROWS:,} rows handed over with the question, an entry: against the faster of DuckDB and Polars"
        ratio = handed["molt, an entry"] / min(handed["DuckDB"], handed["Polars"])
        out.append(Verdict("S6", what, ratio, 0.333, 0.2, "x"))
    rows = found["resident"][0]["rows"]
    resident = _times(found["resident"], "question")
    for peers, must, aim in ((("DuckDB",), 1, None), (("DuckDB", "Polars, streaming"), None, 1)):
        ratios = {
            question: ms["molt"] / min(ms[peer] for peer in peers)
            for question, ms in resident.items()
            if set(peers) <= set(ms)
        }
        if ratios:
            worst = max(ratios, key=lambda question: ratios[question])
            against = f'against {"the faster of " * (len(peers) > 1)}{" and ".join(peers)}: "{worst}", the worst of {len(ratios)}'
            what = f"{rows:,} resident rows{less(rows, RESIDENT_ROWS, '{:,}'.format)}, {against}"
            out.append(Verdict("S7", what, ratios[worst], must, aim, "x"))
    return out


def _times(part: list[dict], field: str) -> dict[object, dict[str, float]]:
    """Milliseconds by engine, by rows or by question."""
    grouped: dict[object, dict[str, float]] = {}
    for row in part:
        grouped.setdefault(row[field], {})[row["engine"]] = row["ms"]
    return grouped


def less(measured: int, target: int, said: Callable[[int], str]) -> str:
    """What is said where less was measured than the target is about."""
    return f" (the target's: {said(target)})" if measured < target else ""
