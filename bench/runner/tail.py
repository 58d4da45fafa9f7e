"""The tail under steady load: at half and at four fifths of the capacity, and the cause of each of the longest requests.

At each place (the client library; Django under gunicorn and under granian) a closed loop shows the capacity. Then requests
arrive at a constant rate (steady.py) while evidence.py watches the kernel's counters and a process that only sleeps; causes.py
gives each stall its cause. A stall is what takes more than five times the p99; the worst 0.01% are told as well.
"""

import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from . import causes, child, data, evidence, percentile, servers, steady, worker
from .errors import BenchError
from .owned import Owned
from .paths import DJANGO, ROOT
from .say import Say, quiet
from .scenarios import OFFLOAD, at_lines
from .servers import Server
from .tables import Table
from .targets import Verdict
from .worker import Worker

CLIENT = "client"
PLACES = {CLIENT: "the client library", "gunicorn": "Django under gunicorn", "granian": "Django under granian"}
TIMES = 5
"""A stall takes more than so many times the p99."""
LISTED = 100
"""Stalls that are told one by one, the longest."""
JUDGED = 0.5
TEN_MINUTES = 600.0
SETUP = 2.5
PERCENTILES = {"p50_ms": 0.5, "p99_ms": 0.99, "p999_ms": 0.999, "p9999_ms": 0.9999}


@dataclass(frozen=True)
class Plan:
    """How long; times in seconds."""

    seconds: float = 60.0
    """At half of the capacity."""
    high_seconds: float = 30.0
    """At four fifths."""
    capacity_seconds: float = 4.0
    lines: int = OFFLOAD.lines

    @property
    def loads(self) -> tuple[tuple[float, float], ...]:
        """Share of the capacity, and seconds."""
        return (JUDGED, self.seconds), (0.8, self.high_seconds)

    def minutes(self, minutes: float) -> "Plan":
        """The same with so long a load at half of the capacity."""
        return replace(self, seconds=60 * minutes)


QUICK = Plan(seconds=4.0, high_seconds=2.0, capacity_seconds=1.0)
CHECK = Plan(seconds=1.5, high_seconds=1.0, capacity_seconds=1.0, lines=200)
"""Every path once; the figures mean nothing."""


def planned_seconds(plan: Plan) -> float:
    """What it takes, for the progress line."""
    return len(PLACES) * (SETUP + plan.capacity_seconds + sum(seconds + 1.5 for _, seconds in plan.loads))


def measure(owned: Owned, logs: Path, plan: Plan, say: Say = quiet) -> dict:
    """`places`, each with its capacity and its loads."""
    body = data.body(at_lines(plan.lines)[1])
    shown, left = [], []
    for name, title in PLACES.items():
        engine = worker.start(owned, logs / f"tail-worker-{name}.log")
        arena_before = engine.stat()["arena"]["used_bytes"]
        pauses = logs / f"tail-pauses-{name}"
        server = None if name == CLIENT else start(owned, name, engine, logs, pauses)
        at = Place(owned, logs, name, engine, server, body, pauses)
        say(f"{title}: a closed loop")
        capacity = at.capacity(plan.capacity_seconds)
        loads = []
        for share, seconds in plan.loads:
            say(f"{title}: {seconds:,.0f} s at {share:.0%} of {capacity:,.0f} requests/s")
            loads.append(at.load(share, share * capacity, seconds))
        if server is not None:
            server.child.fail_if_ended()
            owned.end(server.child)
        worker.after_clients(engine, arena_before)
        left += worker.stop(owned, engine)
        shown.append({"name": title, "capacity": round(capacity, 1), "loads": loads})
    return {"lines": plan.lines, "places": shown, "left_behind": left}


def start(owned: Owned, name: str, engine: Worker, logs: Path, pauses: Path) -> Server:
    """Django whose answers say what the worker needed."""
    more = {
        "DJANGO_SETTINGS_MODULE": "bench.peers.site.watched",
        "PYTHONPATH": f"{ROOT}:{DJANGO}",
        "MOLT_BENCH_PAUSES": str(pauses),
    }
    return servers.start(owned, name, engine.shm, logs / f"tail-{name}.log", more)


@dataclass
class Place:
    """Somewhere that requests are sent to."""

    owned: Owned
    logs: Path
    name: str
    engine: Worker
    server: Server | None
    body: Path
    pauses: Path
    """Where the web processes write the collector's pauses."""

    @property
    def records(self) -> Path:
        """Where the generator writes what became of each request."""
        return self.logs / f"tail-records-{self.name}"

    def capacity(self, seconds: float) -> float:
        """Answers a second of a closed loop."""
        told = self._finish(self._generator(0.0, seconds), seconds)
        return len(steady.read(self.records)["due"]) / told["seconds"]

    def load(self, share: float, rate: float, seconds: float) -> dict:
        """Requests arrive at that rate; what they took, and why the longest did."""
        watch = evidence.Watch(self._processes())
        probe, out = evidence.probe(self.owned, self.logs, seconds + 1)
        generator = self._generator(rate, seconds)
        watch.add(generator.pid)
        watch.start()
        try:
            told = self._finish(generator, seconds)
        finally:
            looks = watch.stop()
        probe.wait(seconds + 30)
        self.owned.end(probe)
        jitter = evidence.jitter(out)
        threads = None if self.server is None else servers.PROCESSES * servers.THREADS
        pauses = [(at, length) for at, length in told["pauses"]] + self._web_pauses()
        seen = causes.Evidence(steady.read(self.records), looks, jitter, pauses, threads)
        return {
            "share": share, "rate": round(rate, 1), "seconds": seconds, **figures(seen),
            "errors": told["errors"], "unanswered": told["unanswered"],
            "generator_cpu_s": round(told["cpu_s"], 3),
            "generator_lag_ms": lag(seen), "jitter": jitter.told(), "watch_cpu_share": round(watch.cpu_s / seconds, 4),
            "faults": {"minor": sum(one.minor_faults for one in looks), "major": sum(one.major_faults for one in looks)},
            "steal_s": round(sum(one.steal for one in looks), 3),
        }  # fmt: skip

    def _processes(self) -> list[int]:
        """Everything that serves."""
        web = [] if self.server is None else psutil.Process(self.server.pid).children(recursive=True)
        return [self.engine.pid, *(one.pid for one in web)]

    def _generator(self, rate: float, seconds: float) -> child.Child:
        asked: dict = {"shm": self.engine.shm}
        if self.server is not None:
            port = int(self.server.url.rsplit(":", 1)[1])
            asked = {"host": servers.HOST, "port": port, "path": "/offload/", "token": servers.TOKEN}
        settings = steady.Settings(str(self.body), str(self.records), rate, seconds, **asked)
        place = settings.write(self.logs / f"tail-settings-{self.name}.json")
        command: child.Command = [sys.executable, "-m", "bench.runner.steady", place]
        log = self.logs / f"tail-generator-{self.name}.log"
        return child.start(self.owned, "the generator", command, log, cwd=ROOT)

    def _finish(self, generator: child.Child, seconds: float) -> dict:
        """What the generator says at its end."""
        status = generator.wait(seconds + steady.LAST_SECONDS + 60)
        self.owned.end(generator)
        self.engine.child.fail_if_ended()
        if status:
            raise BenchError(f"{generator} failed. Its last lines:\n{generator.tail()}")
        told = json.loads(generator.tail(1))
        if told["errors"]:
            raise BenchError(f"{PLACES[self.name]}: requests failed under a load that can be served: {told['errors']}")
        return told

    def _web_pauses(self) -> list[tuple[float, float]]:
        if not self.pauses.exists():
            return []
        lines = (line.split() for line in self.pauses.read_text().splitlines())
        return [(float(at), float(length)) for at, length in lines]


def figures(seen: causes.Evidence) -> dict:
    """Percentiles, the limit, and the stalls with their causes."""
    ordered = sorted(seen.ms)
    found = {name: percentile.at(ordered, share) for name, share in PERCENTILES.items()}
    limit = None if found["p99_ms"] is None else TIMES * found["p99_ms"]
    stalls = seen.stalls(limit)
    return {
        "requests": len(ordered),
        **{name: None if ms is None else round(ms, 3) for name, ms in found.items()},
        "max_ms": round(ordered[-1], 3),
        "limit_ms": None if limit is None else round(limit, 3),
        "above_limit": 0 if limit is None else sum(one.ms > limit for one in stalls),
        "causes": causes.counted(stalls),
        "stalls": [
            {"at_s": round(one.at, 3), "ms": round(one.ms, 3), "cause": one.cause, "requests": one.requests}
            for one in stalls[:LISTED]
        ],
    }


def lag(seen: causes.Evidence) -> dict[str, float | None]:
    """How late the generator sent: what of the times is its own."""
    late = sorted((sent - due) * 1000 for due, sent in zip(seen.columns["due"], seen.columns["sent"], strict=True))
    return {"p50": percentile.at(late, 0.5), "p99": percentile.at(late, 0.99), "longest": late[-1]}


def tables(found: dict) -> list[Table]:
    """A row a load, and the longest stalls."""
    columns = ["at", "load", "arriving/s", "s", "requests", "p50 ms", "p99 ms", "p99.9 ms", "p99.99 ms", "longest ms"]
    columns += ["5 x p99", "above it", "causes of the longest"]
    rows, longest = [], []
    for place in found["places"]:
        for load in place["loads"]:
            times = (load[name] for name in (*PERCENTILES, "max_ms", "limit_ms"))
            said = ", ".join(f"{cause} {count}" for cause, count in load["causes"].items())
            where = [place["name"], f"{load['share']:.0%}"]
            rows.append([*where, f"{load['rate']:,.0f}", f"{load['seconds']:,.0f}", f"{load['requests']:,}"])
            rows[-1] += [*(percentile.shown(ms, 2) for ms in times), str(load["above_limit"]), said]
            longest += [
                [*where, f"{one['at_s']:,.2f}", f"{one['ms']:,.2f}", str(one["requests"]), one["cause"]]
                for one in load["stalls"][:5]
            ]
    title = f"The tail under steady load, {found['lines']:,} order lines; times count from when a request was due"
    return [
        Table(title, columns, rows, 1),
        Table("The longest stalls", ["at", "load", "second", "ms", "requests", "cause"], longest, 2),
    ]


def verdicts(found: dict) -> list[Verdict]:
    """No run of ten minutes at half of the capacity shows a stall above five times the p99."""
    out = []
    for place in found["places"]:
        for load in place["loads"]:
            if load["share"] == JUDGED and load["p99_ms"]:
                short = "" if load["seconds"] >= TEN_MINUTES else " (ten minutes are asked for)"
                what = (
                    f"{place['name']}: the longest of {load['seconds']:,.0f} s at half of its capacity{short}, by p99"
                )
                out.append(Verdict("tail", what, load["max_ms"] / load["p99_ms"], TIMES, None, "x"))
    return out
