"""Calls at the client library by how many are in flight: 1 to 1,024 from one event loop, and 1 to 256 client processes.

`python -m bench.runner.in_flight SHM PID ENTRY BODY IN_FLIGHT SECONDS` is the event loop: it keeps so many calls in flight and
prints JSON. The client processes are bench/runner/caller.py; they begin together, when all have attached. CPU is that of the
clients and the worker together, divided by the calls.
"""

import asyncio
import json
import sys
import time
from array import array
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from . import child, data, percentile, turns, usage, worker
from .errors import BenchError
from .owned import Owned
from .paths import ROOT
from .say import Say, quiet
from .scenarios import OFFLOAD
from .tables import Table
from .targets import Verdict
from .worker import Worker

ECHO, ORDERS = "echo", "order_summary"
TITLES = {ECHO: "echo of 64 bytes", ORDERS: "order summary, 2,000 lines"}
PAYLOAD = bytes(range(64))
LOOP_START = 0.6
CALLER_START = 0.06
"""Seconds a Python process needs to start and attach, while others do the same."""
SETUP = 2.0
WARM_CALLS = 200
TIMEOUT = 60.0
QUEUE = 4096
"""The worker's queue: as many must be allowed to wait as are in flight, else one more is told to come back."""


@dataclass(frozen=True)
class Plan:
    """How much is measured; times in seconds, each per point."""

    in_flight: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64, 256, 1024)
    clients: tuple[int, ...] = (1, 2, 4, 16, 64, 256)
    seconds: float = 1.0
    rounds: int = 5


QUICK = Plan((1, 8, 64, 1024), (1, 4, 16), 0.6, 1)
CHECK = Plan((1, 32), (1, 2), 0.3, 1)
"""Every path once; the figures mean nothing."""


def planned_seconds(plan: Plan) -> float:
    """What it takes, for the progress line."""
    loops = len(TITLES) * len(plan.in_flight) * (plan.seconds + LOOP_START)
    processes = len(plan.clients) * (plan.seconds + SETUP / 2) + CALLER_START * sum(plan.clients)
    return SETUP + plan.rounds * (loops + processes)


def measure(owned: Owned, logs: Path, plan: Plan, say: Say = quiet) -> dict:
    """`series`: for each entry its points by calls in flight; `clients`: the points by client processes."""
    bodies = {ECHO: logs / "echo-64.bin", ORDERS: data.body(OFFLOAD)}
    logs.mkdir(parents=True, exist_ok=True)
    bodies[ECHO].write_bytes(PAYLOAD)
    engine = worker.start(owned, logs / "worker-in-flight.log", ("--queue", str(QUEUE)))
    arena_before = engine.stat()["arena"]["used_bytes"]
    loops: dict[tuple[str, int], list[dict]] = {}
    processes: dict[int, list[dict]] = {}
    for number in range(plan.rounds):
        say(f"round {number + 1} of {plan.rounds}")
        for count in turns.order(plan.in_flight, number):
            for entry, body in bodies.items():
                loops.setdefault((entry, count), []).append(loop(owned, engine, logs, entry, body, count, plan.seconds))
        for count in turns.order(plan.clients, number):
            processes.setdefault(count, []).append(clients(owned, engine, logs, count, plan.seconds))
    worker.after_clients(engine, arena_before)
    left = worker.stop(owned, engine)
    return {
        "rounds": plan.rounds,
        "series": [
            {"name": TITLES[entry], "points": [middle(loops[entry, count]) for count in plan.in_flight]}
            for entry in bodies
        ],
        "clients": {
            "name": f"{TITLES[ECHO]}, client processes",
            "points": [middle(processes[n]) for n in plan.clients],
        },
        "left_behind": left,
    }


def middle(rounds: list[dict]) -> dict:
    """The median of each figure over the rounds; None where a round has too few calls for it."""

    def of(name: str) -> float | None:
        values = [one[name] for one in rounds]
        return None if None in values else round(median(values), 3)

    return {name: of(name) for name in rounds[0]}


def loop(owned: Owned, engine: Worker, logs: Path, entry: str, body: Path, count: int, seconds: float) -> dict:
    """One event loop with so many calls in flight."""
    words = [engine.shm, str(engine.pid), entry, str(body), str(count), str(seconds)]
    command: child.Command = [sys.executable, "-m", "bench.runner.in_flight", *words]
    running = child.start(owned, "an event loop", command, logs / f"in-flight-{entry}-{count}.log", cwd=ROOT)
    status = running.wait(seconds + TIMEOUT)
    owned.end(running)
    if status:
        raise BenchError(f"{running} failed. Its last lines:\n{running.tail()}")
    return json.loads(running.tail(1))


async def look(shm: str, pid: int, entry: str, body: bytes, count: int, seconds: float) -> dict:
    """Keeps so many calls in flight here; the worker's CPU counts as well."""
    import molt_accel
    from molt_accel import codecs

    codec = codecs.RAW if entry == ECHO else codecs.JSON
    clock, took = time.perf_counter_ns, array("q")
    async with molt_accel.Client(shm) as client:

        async def user(end: int, times: array) -> None:
            while (began := clock()) < end:
                await client.aexchange(entry, body, codec, codec, timeout=TIMEOUT)
                times.append(clock() - began)

        answer = await client.aexchange(entry, body, codec, codec, timeout=TIMEOUT)
        if entry == ECHO and bytes(answer.body) != body:
            raise BenchError(f"echo answers {bytes(answer.body)[:80]!r}")
        await asyncio.gather(*(user(clock() + int(seconds / 4 * 1e9), array("q")) for _ in range(count)))
        spent, began = usage.cpu_seconds(pid) + time.process_time(), clock()
        await asyncio.gather(*(user(began + int(seconds * 1e9), took) for _ in range(count)))
        wall = (clock() - began) / 1e9
        spent = usage.cpu_seconds(pid) + time.process_time() - spent
    return {"in_flight": count, **figures(took, wall, spent)}


def figures(took: array, wall: float, cpu_s: float) -> dict[str, float | None]:
    """What the calls of one point come to; times in nanoseconds."""
    ordered = sorted(ns / 1e3 for ns in took)
    return {
        "calls_per_s": len(took) / wall,
        "p50_us": percentile.at(ordered, 0.5),
        "p99_us": percentile.at(ordered, 0.99),
        "cpu_us": cpu_s / len(took) * 1e6,
    }


def clients(owned: Owned, engine: Worker, logs: Path, count: int, seconds: float) -> dict:
    """So many processes that call `echo` one call after the other."""
    word = logs / "callers-begin"
    word.unlink(missing_ok=True)
    command: child.Command = [sys.executable, "-m", "bench.runner.caller", engine.shm, str(seconds), word]
    callers = [
        child.start(owned, "a client process", command, logs / f"client-{n}.log", cwd=ROOT) for n in range(count)
    ]
    attached = 60 + count

    def all_there() -> bool:
        for one in callers:
            one.fail_if_ended()
        return len(engine.stat()["sessions"]) == count

    child.until(all_there, f"that {count} client processes attach", attached, engine.child)
    before, began = usage.cpu_seconds(engine.pid), time.monotonic()
    word.touch()
    told = []
    for one in callers:
        if one.wait(seconds + TIMEOUT + count):
            raise BenchError(f"{one} failed. Its last lines:\n{one.tail()}")
        told.append(json.loads(one.tail(1)))
        owned.end(one)
    worker_s = usage.cpu_seconds(engine.pid) - before
    wall = max(one["until"] for one in told) - began
    calls = sum(one["calls"] for one in told)
    ordered = sorted(us for one in told for us in one["us"])
    child.until(lambda: not engine.stat()["sessions"], "that the clients' sessions end", 30, engine.child)
    return {
        "clients": count,
        "calls_per_s": calls / wall,
        "p50_us": percentile.at(ordered, 0.5),
        "p99_us": percentile.at(ordered, 0.99),
        "cpu_us": (sum(one["cpu_s"] for one in told) + worker_s) / calls * 1e6,
        "client_cpu_us": sum(one["cpu_s"] for one in told) / calls * 1e6,
    }


def tables(found: dict) -> list[Table]:
    """A table a series, a row a point."""
    out = []
    for series, by in (*((one, "in_flight") for one in found["series"]), (found["clients"], "clients")):
        rows = [
            [
                f"{one[by]:,}",
                f"{one['calls_per_s']:,.0f}",
                *(percentile.shown(one[key]) for key in ("p50_us", "p99_us", "cpu_us")),
            ]
            for one in series["points"]
        ]
        columns = [by.replace("_", " "), "calls/s", "p50 us", "p99 us", "CPU us a call"]
        out.append(Table(f"{series['name']}: knee at {knee(series['points'], by):,}", columns, rows, 0))
    return out


KNEE = 0.95


def knee(points: list[dict], by: str) -> int:
    """The fewest in flight that reach 95% of the most calls a second: more of them only wait."""
    most = max(point["calls_per_s"] for point in points)
    return min(point[by] for point in points if point["calls_per_s"] >= KNEE * most)


def verdicts(found: dict) -> list[Verdict]:
    """None: targets.md asks for the curve."""
    return []


if __name__ == "__main__":
    shm, pid, entry, path, count, seconds = sys.argv[1:]
    print(json.dumps(asyncio.run(look(shm, int(pid), entry, Path(path).read_bytes(), int(count), float(seconds)))))
