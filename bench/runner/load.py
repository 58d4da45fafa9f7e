"""Latency against offered load: every side of bench/peers/ at the same absolute arrival rates, and with 1 to 256 users.

For each workload a closed loop shows what each side can answer at most. The fastest one's capacity sets the rates for all.
Then requests arrive in an open loop, and times count from when they were due. A side is not asked beyond the first rate of
which it answers less than nine tenths. Every side runs with as many processes as there are cores, unless the plan says to
search. At last as many users as the plan names, each with one request in flight, ask in turn.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import percentile, sides, turns, worker
from .k6 import Generated
from .owned import Owned
from .say import Say, quiet
from .sides import Workload
from .tables import Table
from .targets import Verdict

K6_START = 0.7
SETUP = 2.5
"""Seconds that a side takes to start, to be warmed up and to end."""
COMPARING = 2.0
"""Comparing answers, for each side: some 330 requests."""
ASKED_OF_SLOW = 0.55
"""The share of the rates that a side is asked on average; for the planned length."""
KEPT_UP = 0.9
USERS = 32
"""An open loop may have eight times as many in flight."""
ROUNDED = 3
PERCENTILES = {"p50_ms": 50.0, "p99_ms": 99.0, "p999_ms": 99.9, "p9999_ms": 99.99}


@dataclass(frozen=True)
class Plan:
    """How much is measured; times in seconds, each per load."""

    shares: tuple[float, ...] = (0.05, 0.15, 0.3, 0.5, 0.7, 0.9, 1.0, 1.1)
    """Of the fastest side's capacity."""
    users: tuple[int, ...] = (1, 8, 64, 256)
    seconds: float = 3.0
    requests: int = 500
    """Of each rate at least, so that they carry a p99; in three times the seconds at most."""
    names: tuple[str, ...] = ()
    """Only these peers; none: all."""
    capacity_users: int = 16
    capacity_seconds: float = 2.5

    def lasting(self, rate: float) -> float:
        """How long requests arrive at that rate."""
        return min(max(self.seconds, self.requests / rate), 3 * self.seconds)


HEADLINE = ("molt", "tuned Python", "Go", "Polars")
QUICK = Plan((0.05, 0.3, 0.7, 1.1), (1, 16), 1.0, 0, HEADLINE, capacity_seconds=1.0)
CHECK = Plan((0.1, 0.5), (1, 4), 1.0, 0, ("molt", "tuned Python", "numpy"), capacity_users=4, capacity_seconds=1.0)
"""Every path once; the figures mean nothing."""


def chosen(plan: Plan) -> list[Any]:
    """The peers that the plan asks for."""
    from bench.peers import catalog

    return [peer for peer in catalog.PEERS if not plan.names or peer.name in plan.names]


def planned_seconds(plan: Plan) -> float:
    """What it takes, for the progress line."""
    loads = (ASKED_OF_SLOW * len(plan.shares) + len(plan.users)) * (plan.seconds + K6_START)
    longer = plan.seconds if plan.requests else 0.0  # the lowest rate
    return len(chosen(plan)) * (SETUP + COMPARING + plan.capacity_seconds + K6_START + loads + longer)


@dataclass
class Loaded:
    """One side, and what it has shown."""

    peer: Any
    version: str
    side: Any = None
    compared: int = 0
    capacity: float = 0.0
    points: list[dict] = field(default_factory=list)
    concurrency: list[dict] = field(default_factory=list)

    @property
    def keeps_up(self) -> bool:
        """Whether it has answered nine tenths of what arrived last."""
        return not self.points or kept_up(self.points[-1])


class Run:
    """One run of the plan."""

    def __init__(self, owned: Owned, logs: Path, plan: Plan, say: Say = quiet) -> None:
        from bench.peers.peer import Stage

        self._plan, self._say = plan, say
        self._engine = worker.start(owned, logs / "worker-load.log")
        self._arena_before = self._engine.stat()["arena"]["used_bytes"]
        self._stage = Stage(owned, logs, self._engine)
        self._missing: dict[str, str] = {}

    def all(self) -> dict:
        """What load.json holds."""
        from bench.peers import catalog

        available, self._missing = catalog.available()
        wanted = [peer for peer in chosen(self._plan) if peer in available]
        shown = []
        for workload in sides.workloads():
            every = [Loaded(peer, available[peer]) for peer in wanted if peer.group == workload.group]
            if every:
                shown.append(self._workload(workload, every))
        worker.after_clients(self._engine, self._arena_before)
        left = worker.stop(self._stage.owned, self._engine)
        return {
            "seconds": self._plan.seconds, "cores": catalog.CORES, "seed": turns.SEED, "workloads": shown,
            "missing": self._missing, "left_behind": left,
        }  # fmt: skip

    def _workload(self, workload: Workload, every: list[Loaded]) -> dict:
        expected = sides.right_answers(self._stage, workload)
        running = [one for one in every if self._ready(workload, one, expected)]
        fastest = max((one.capacity for one in running), default=0.0)
        for number, share in enumerate(self._plan.shares):
            rate = max(1.0, share * fastest)
            self._say(f"{workload.group}: {rate:,.0f} requests/s arriving")
            for one in turns.order([one for one in running if one.keeps_up], number):
                if not self._survives(workload, one, lambda one=one, rate=rate: self._arrivals(workload, one, rate)):
                    running.remove(one)
        for number, users in enumerate(self._plan.users):
            self._say(f"{workload.group}: {users} users")
            for one in turns.order(running, number):
                if not self._survives(workload, one, lambda one=one, users=users: self._users(workload, one, users)):
                    running.remove(one)
        for one in running:
            sides.end(self._stage, one.side)
        return {
            "group": workload.group, "title": workload.title, "capacity": round(fastest, 1),
            "sides": [told(one) for one in running],
        }  # fmt: skip

    def _ready(self, workload: Workload, one: Loaded, expected: list) -> bool:
        """Starts the side, compares its answers, warms every web process up and shows what it can answer; or notes why it
        is missing."""
        from bench.peers import catalog
        from bench.peers.peer import Missing

        counts = one.peer.counts
        try:
            one.side = sides.start(self._stage, one.peer, catalog.CORES if catalog.CORES in counts else counts[-1])
        except Missing as reason:
            self._missing[f"{one.peer.name} ({workload.group})"] = str(reason)
            return False
        one.compared = sides.check(one.peer.name, one.side, workload, expected)
        sides.warm(one.side, workload)
        if not self._survives(workload, one, lambda: self._capacity(workload, one)):
            return False
        self._say(f"{workload.group}: {one.peer.name}: {one.capacity:,.0f} requests/s, {one.compared} answers equal")
        return True

    def _survives(self, workload: Workload, one: Loaded, work: Callable[[], object]) -> bool:
        """Whether the side is there after it. One that has died is told with those that are missing; the others go on."""
        died = sides.survives(self._stage, one.side, work)
        if died is not None:
            self._missing[f"{one.peer.name} ({workload.group})"] = died
            self._say(f"{workload.group}: {one.peer.name}: {died}")
        return died is None

    def _capacity(self, workload: Workload, one: Loaded) -> None:
        generated, _ = self._load(workload, one, self._plan.capacity_seconds, self._plan.capacity_users)
        one.capacity = generated.rps

    def _arrivals(self, workload: Workload, one: Loaded, rate: float) -> None:
        seconds = self._plan.lasting(rate)
        one.points.append(point(*self._load(workload, one, seconds, USERS, rate), rate, seconds))

    def _users(self, workload: Workload, one: Loaded, users: int) -> None:
        generated, _ = self._load(workload, one, self._plan.seconds, users)
        one.concurrency.append({"users": users, "rps": round(generated.rps, 1), **latencies(generated)})

    def _load(
        self, workload: Workload, one: Loaded, seconds: float, users: int, rate: float | None = None
    ) -> tuple[Generated, float]:
        return sides.load(self._stage, one.side, workload, seconds, users, rate)


def latencies(generated: Generated) -> dict[str, float | None]:
    """The percentiles that the requests carry; null: too few."""
    found = {name: generated.ms(of) for name, of in PERCENTILES.items()}
    return {name: None if ms is None else round(ms, ROUNDED) for name, ms in found.items()}


def point(generated: Generated, cpu_s: float, rate: float, seconds: float) -> dict:
    """One rate at one side. What is answered counts over the time in which requests arrived."""
    good = generated.requests - generated.errors
    return {
        "rate": round(rate, 2),
        "seconds": round(seconds, 2),
        "answered": round(good / max(seconds, generated.seconds), 2),
        **latencies(generated),
        "max_ms": round(generated.latency["max"], ROUNDED),
        "samples": generated.requests,
        "errors": generated.errors,
        "not_started": generated.dropped,
        "cpu_s": round(cpu_s, ROUNDED),
        "generator_cpu_s": round(generated.generator_cpu_s, ROUNDED),
    }


def told(one: Loaded) -> dict:
    """One side in load.json."""
    return {
        "name": one.peer.name, "server": one.peer.server, "how": one.peer.how, "version": one.version,
        "command": one.side.command, "compared": one.compared, "capacity": round(one.capacity, 1),
        "points": one.points, "concurrency": one.concurrency,
    }  # fmt: skip


def measure(owned: Owned, logs: Path, plan: Plan, say: Say = quiet) -> dict:
    """Everything that the plan asks for."""
    return Run(owned, logs, plan, say).all()


def tables(found: dict) -> list[Table]:
    """For each workload latencies by rate and by users, a row a side, the fastest first; and what is missing."""
    out = []
    for workload in found["workloads"]:
        fastest_first = sorted(workload["sides"], key=lambda one: -one["capacity"])
        rates = sorted({point["rate"] for one in fastest_first for point in one["points"]})
        rows = []
        for one in fastest_first:
            at = {point["rate"]: point for point in one["points"]}
            rows.append([one["name"], *(cell(at.get(rate)) for rate in rates)])
        columns = ["side", *(f"{rate:,.0f}/s" for rate in rates)]
        title = f"{workload['title']}: p50 and p99 ms by requests arriving, from when they were due (* not kept up)"
        out.append(Table(title, columns, rows, 1))
        users = [one["users"] for one in fastest_first[0]["concurrency"]] if fastest_first else []
        rows = [
            [one["name"], *(f"{at['rps']:,.0f} ({percentile.shown(at['p99_ms'])})" for at in one["concurrency"])]
            for one in fastest_first
        ]
        title = f"{workload['title']}: requests/s (p99 ms) by users"
        out.append(Table(title, ["side", *(str(count) for count in users)], rows, 1))
    if found["missing"]:
        out.append(Table("Peers that are missing", ["peer", "why"], [[*one] for one in found["missing"].items()], 2))
    return out


def cell(point: dict | None) -> str:
    """p50 and p99 at one rate; nothing where the side was not asked."""
    if point is None:
        return ""
    return f"{percentile.shown(point['p50_ms'])} / {percentile.shown(point['p99_ms'])}{'' if kept_up(point) else ' *'}"


def kept_up(point: dict) -> bool:
    """Whether nine tenths of what arrived were answered."""
    return point["answered"] >= KEPT_UP * point["rate"]


MOLT, PLAIN = "molt", "plain Python"


def verdicts(found: dict) -> list[Verdict]:
    """S8's aim: p99 at an equal arrival rate, the highest one that both keep up with, for each server."""
    out = []
    for workload in found["workloads"]:
        if workload["group"] != "orders":
            continue
        by = {(one["name"].split(",")[0], one["server"]): one["points"] for one in workload["sides"]}
        for (name, server), ours in by.items():
            if name != MOLT or (PLAIN, server) not in by:
                continue
            plain = {point["rate"]: point["p99_ms"] for point in by[PLAIN, server] if kept_up(point)}
            both = [
                (point["rate"], point["p99_ms"] / plain[point["rate"]])
                for point in ours
                if point["p99_ms"] is not None and plain.get(point["rate"]) and kept_up(point)
            ]
            if both:
                rate, ratio = max(both)
                what = f"{server}: orders, p99 at {rate:,.0f} requests/s arriving: molt against {PLAIN}"
                out.append(Verdict("S8", what, ratio, 0.333, 0.1, "x"))
    return out
