"""S1, S4 and the curves: molt-transport-bench, the transport beside its peers in Rust, as a process of this run."""

import json
import shutil
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from . import child
from .errors import BenchError
from .owned import Owned
from .paths import binary
from .say import Say, quiet
from .tables import CALL, Table, call, size
from .targets import Verdict

LONGEST_SECONDS = 1800.0


@dataclass(frozen=True)
class Plan:
    """How much is measured. `seconds` is what it takes, for the progress line."""

    scale: str = ""
    """`--quick`, `--check`, or nothing."""
    parts: tuple[str, ...] = ()
    """Only these; none: all."""
    seconds: float = 420.0


QUICK = Plan("--quick", seconds=75.0)
CHECK = Plan("--check", seconds=5.0)
"""Every path once; the figures mean nothing."""


def planned_seconds(plan: Plan) -> float:
    """How long it takes, for the progress line."""
    return plan.seconds


def measure(owned: Owned, logs: Path, plan: Plan, say: Say = quiet) -> dict:
    """What the program measures."""
    folder = owned.start(
        lambda: Path(tempfile.mkdtemp(prefix="molt-bench-")), partial(shutil.rmtree, ignore_errors=True)
    )
    name = owned.start(lambda: folder.name, unlink)
    log, out = logs / "transport.log", folder / "report.json"
    command: list[str | Path] = [
        binary("molt-transport-bench"),
        "run",
        "--folder",
        folder,
        "--name",
        name,
        "--out",
        out,
    ]
    command += [plan.scale] if plan.scale else []
    command += [word for part in plan.parts for word in ("--part", part)]
    running = child.start(owned, "molt-transport-bench", command, log)
    if running.follow(say, LONGEST_SECONDS):
        raise BenchError(f"{running} failed. Its last lines:\n{running.tail()}")
    report = json.loads(out.read_text())
    for thing in (running, name, folder):
        owned.end(thing)
    return report


def unlink(name: str) -> None:
    """Removes what the run's servers have left in shared memory: iceoryx2 keeps a file there, and so does what is killed."""
    for path in Path("/dev/shm").glob(f"{name}-*"):
        path.unlink(missing_ok=True)


PARTS = {
    "hot": "Rust to Rust, 64 bytes, both sides spinning",
    "asleep": "Rust to Rust, 64 bytes, both sides asleep",
    "sizes": "Rust to Rust, one client, longer payloads",
    "clients": "Rust to Rust, 64 bytes, more clients",
    "spinning": "Cores busy, with spinning and without",
}


def tables(found: dict) -> list[Table]:
    """The transport beside its peers: a table a part, and what is missing."""
    out = []
    for part, title in PARTS.items():
        rows = [
            [
                row["peer"], size(row["size"]), str(row["clients"]), *call(row),
                f"{row['calls_per_s']:,.0f}", f"{row['cpu_us']:.2f}",
            ]
            for row in found["rows"]
            if row["part"] == part
        ]  # fmt: skip
        columns = ["peer", "payload", "clients", *CALL, "calls/s", "CPU us a call"]
        out.append(Table(title, columns, rows))
    if placing := found["placing"]:
        figures = [
            f"{placing[key]:.2f}" for key in ("table_gb_per_s", "memcpy_gb_per_s", "ratio", "ratio_from", "ratio_to")
        ]
        columns = ["table", "placed GB/s", "memcpy GB/s", "ratio", "from", "to"]
        out.append(Table("Placing a table in the arena", columns, [[size(placing["bytes"]), *figures]]))
    missing = [[one["peer"], one["part"], one["why"]] for one in found["missing"]]
    out.append(Table("Peers that are missing", ["peer", "where", "why"], missing, left=3))
    return [table for table in out if table.rows]


def verdicts(found: dict) -> list[Verdict]:
    """S1 and S4, and that spinning costs nothing. What a missing peer leaves unmeasured is not judged: tables say so."""
    p50 = {row["peer"]: row["p50_us"] for row in found["rows"] if row["part"] == "hot"}
    rate = {row["peer"]: row["calls_per_s"] for row in found["rows"] if row["part"] == "spinning"}
    out: list[Verdict] = []

    def judge(target: str, what: str, one: float | None, other: float | None, must, aim=None, **more) -> None:
        if one is not None and other is not None:
            out.append(Verdict(target, what, one / other, must, aim, "x", **more))

    molt, floor = p50.get("molt"), p50.get("bare cache line")
    judge("S1", "Rust to Rust, 64 bytes, hot: against iceoryx2", molt, p50.get("iceoryx2"), 1)
    judge("S1", "the same against the bare cache line", molt, floor, None, 2.5)
    with_, without = (rate.get(name) for name in ("molt, spinning while it pays", "molt, never spinning"))
    what = "16 clients on busy cores: calls/s with spinning against without"
    judge("spin", what, with_, without, 0.97, at_least=True)
    if found["placing"]:
        what = f"placing a table of {found['placing']['bytes'] / 1e6:.0f} MB: bytes/s against a warm memcpy"
        out.append(Verdict("S4", what, found["placing"]["ratio"], 0.7, 0.95, "x", at_least=True))
    return out
