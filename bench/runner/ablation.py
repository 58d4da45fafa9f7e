"""The same entries behind a plain Unix socket: what shared memory itself buys at each size, and where it does not matter.

`molt-ablation` (bench/ablation/) answers over a socket with a thread for each connection: no queue, no deadline, no limit on
memory, which the worker has. Both are called from one Python process, in turn. SQL is left out: its tables are what
the arena is for, and the worker's planner would have to be built a second time.
"""

import shutil
import socket
import struct
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

from . import child, data, usage, worker
from .errors import BenchError
from .owned import Owned
from .paths import binary
from .say import Say, quiet
from .tables import Table, spread
from .targets import Verdict

SETUP = 3.0
SIZES = tuple(64 << 2 * step for step in range(10))  # 64 bytes to 16 MiB
LINES = (20, 200, 2_000, 10_000)
MOLT, SOCKET = "shared memory", "Unix socket"
HEADER = struct.Struct("<II")
LEAST_CALLS = 5
TIMEOUT = 30.0

Ask = Callable[[bytes], bytes]


@dataclass(frozen=True)
class Plan:
    """How long each turn takes."""

    rounds: int = 5
    turn_seconds: float = 0.15

    @property
    def total(self) -> float:
        """Seconds that all of it takes, about."""
        return SETUP + 2 * self.rounds * self.turn_seconds * (len(SIZES) + len(LINES))


QUICK = Plan(rounds=2, turn_seconds=0.05)
CHECK = Plan(rounds=1, turn_seconds=0.01)


def planned_seconds(plan: Plan) -> float:
    """How long it takes, for the progress line."""
    return plan.total


@contextmanager
def connected(place: Path) -> Iterator[Callable[[str, bytes], bytes]]:
    """A kept connection to molt-ablation."""
    with closing(socket.socket(socket.AF_UNIX)) as stream:
        stream.settimeout(None)
        stream.connect(str(place))

        def read(count: int) -> bytes:
            """Into a fresh bytes object, by one call where the kernel gives all."""
            got = stream.recv(count, socket.MSG_WAITALL)
            while len(got) < count:
                if not (more := stream.recv(count - len(got), socket.MSG_WAITALL)):
                    raise BenchError(f"molt-ablation closed the connection after {len(got)} of {count} bytes")
                got += more
            return got

        def ask(entry: str, payload: bytes) -> bytes:
            name = entry.encode()
            head = HEADER.pack(len(name), len(payload)) + name
            sent = stream.sendmsg([head, payload])
            if sent < len(head) + len(payload):
                stream.sendall(memoryview(payload)[sent - len(head) :])
            good, length = HEADER.unpack(read(HEADER.size))
            answer = read(length) if length else b""
            if not good:
                raise BenchError(f"molt-ablation: {entry}: {answer[:200].decode(errors='replace')}")
            return answer

        yield ask


def measure(owned: Owned, logs: Path, plan: Plan = Plan(), say: Say = quiet) -> dict:
    """`rows`: for each entry and size both ways, medians over the rounds; the shape is in bench/README.md."""
    import molt_accel
    from molt_accel import codecs

    folder = owned.start(
        lambda: Path(tempfile.mkdtemp(prefix="molt-bench-")), partial(shutil.rmtree, ignore_errors=True)
    )
    place = folder / "ablation.sock"
    served = child.start(owned, "molt-ablation", [binary("molt-ablation"), place], logs / "ablation.log")
    child.until(place.is_socket, f"that {served} listens", 10, served)
    engine = worker.start(owned, logs / "worker-ablation.log")
    rows = []
    with molt_accel.attach(shm=engine.shm) as client, connected(place) as by_socket:
        for entry, codec, payloads in (
            ("echo", codecs.RAW, (data.bytes_of(size) for size in SIZES)),
            ("order_summary", codecs.JSON, (data.orders(lines) for lines in LINES)),
        ):
            for number, payload in enumerate(payloads):
                say(f"{entry} with and without shared memory, {len(payload):,} bytes")
                asks: dict[str, tuple[Ask, int]] = {
                    MOLT: (
                        lambda sent, entry=entry, codec=codec: client.exchange(entry, sent, codec, codec, TIMEOUT).body,
                        engine.pid,
                    ),
                    SOCKET: (partial(by_socket, entry), served.pid),
                }
                lines = LINES[number] if entry == "order_summary" else None
                rows += compared(entry, lines, payload, asks, plan)
    left = worker.stop(owned, engine)
    for thing in (served, folder):
        owned.end(thing)
    return {"rows": rows, "rounds": plan.rounds, "left_behind": left}


def compared(entry: str, lines: int | None, payload: bytes, asks: dict[str, tuple[Ask, int]], plan: Plan) -> list[dict]:
    """Both ways to call one entry with one payload: equal answers first, then turn by turn."""
    answers = {way: bytes(ask(payload)) for way, (ask, _) in asks.items()}
    if len(set(answers.values())) > 1 or (entry == "echo" and answers[MOLT] != payload):
        raise BenchError(f"{entry} with {len(payload)} bytes: {' and '.join(asks)} answer differently")
    turns: dict[str, list[tuple[float, float]]] = {way: [] for way in asks}
    for _ in range(plan.rounds):
        for way, (ask, pid) in asks.items():
            turns[way].append(turn(ask, payload, pid, plan.turn_seconds))
    return [
        {
            "entry": entry,
            "way": way,
            "bytes": len(payload),
            "lines": lines,
            "p50_us": median(us for us, _ in found),
            "p50_from_us": min(us for us, _ in found),
            "p50_to_us": max(us for us, _ in found),
            "cpu_us": median(cpu for _, cpu in found),
        }
        for way, found in turns.items()
    ]


def turn(ask: Ask, payload: bytes, pid: int, seconds: float) -> tuple[float, float]:
    """The median call, and the CPU time of a call in both processes, microseconds."""
    clock, took = time.perf_counter_ns, []
    ask(payload)
    spent = usage.cpu_seconds(pid) + time.process_time()
    end = clock() + int(seconds * 1e9)
    while len(took) < LEAST_CALLS or clock() < end:
        began = clock()
        ask(payload)
        took.append(clock() - began)
    spent = usage.cpu_seconds(pid) + time.process_time() - spent
    return median(took) / 1e3, spent / len(took) * 1e6


def table(found: dict) -> Table:
    """A row a size."""
    by: dict[tuple[str, int], dict[str, dict]] = {}
    for row in found["rows"]:
        by.setdefault((row["entry"], row["bytes"]), {})[row["way"]] = row
    rows = []
    for (entry, size), ways in by.items():
        ours, plain = ways[MOLT], ways[SOCKET]
        what = entry if ours["lines"] is None else f"{entry}, {ours['lines']:,} lines"
        against = f"{plain['p50_us'] / ours['p50_us']:.2f}x"
        cpu = [f"{way['cpu_us']:,.1f}" for way in (ours, plain)]
        rows.append([what, f"{size:,}", median_of(ours), median_of(plain), against, *cpu])
    columns = [
        "entry",
        "bytes",
        "shared memory us (rounds)",
        "Unix socket us (rounds)",
        "socket against it",
        "CPU us",
        "socket's CPU us",
    ]
    return Table("The same entries with and without shared memory, called from Python", columns, rows, 1)


def median_of(row: dict) -> str:
    """The median with the least and the largest round."""
    return f"{row['p50_us']:,.1f} ({spread(row['p50_from_us'], row['p50_to_us'], 1)})"


def tables(found: dict) -> list[Table]:
    """The one table."""
    return [table(found)]


def verdicts(found: dict) -> list[Verdict]:
    """No target is about it: it says where shared memory pays and where it does not."""
    return []
