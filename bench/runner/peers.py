"""molt beside what a team would take instead: one run, all sides in turn. The peers are in bench/peers/, one a file.

For each workload: answers are compared, the best worker count of each side is searched, then every round gives each side its
turn in a closed loop, in another order each time, and at last requests arrive for all at one rate.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

from . import ablation, percentile, sides, turns, worker
from .k6 import Generated
from .owned import Owned
from .paths import binary
from .say import Say, quiet
from .sides import Workload
from .tables import Table
from .targets import Verdict

K6_START = 0.7
ABOUT = 80.0
"""Requests a second that arrive, as planned: of the slowest side's hundred and a half."""
SETUP = 3.5
ROUNDED = 3


@dataclass(frozen=True)
class Plan:
    """How much is measured; times in seconds, each per load."""

    users: int = 16
    rounds: int = 5
    seconds: float = 3.5
    warm_up: float = 1.0
    """k6 takes nothing shorter than a second."""
    search: bool = True
    """Whether worker counts are tried; else every side has as many as there are cores."""
    search_seconds: float = 1.5
    arrival_share: float = 0.6
    """Of what the slowest side can answer."""
    arrivals: int = 500
    """Requests that arrive at least, so that they carry a p99."""
    names: tuple[str, ...] = ()
    """Only these peers; none: all."""
    without: ablation.Plan = ablation.Plan()
    """How long the entries are called with and without shared memory."""


QUICK = Plan(rounds=2, seconds=1.2, search=False, arrivals=0, without=ablation.Plan(rounds=2, turn_seconds=0.05))
CHECK = Plan(users=4, rounds=1, seconds=1.0, search=False, arrivals=0, without=ablation.CHECK)
"""Every path once; the figures mean nothing."""


def planned_seconds(plan: Plan) -> float:
    """What it takes, for the progress line."""
    from bench.peers import catalog

    every = [peer for peer in catalog.PEERS if not plan.names or peer.name in plan.names]
    counts = [*(len(peer.counts) for peer in every if len(peer.counts) > 1), *(len(peer.threads) for peer in every)]
    tried = sum(counts) if plan.search else 0
    arrival = max(plan.seconds, plan.arrivals / ABOUT)
    loads = plan.rounds * (plan.seconds + K6_START) + plan.warm_up + arrival + 2 * K6_START + SETUP
    without = 0.0 if plan.names else plan.without.total
    return len(every) * loads + tried * (plan.search_seconds + K6_START + SETUP) + without


@dataclass
class Measured:
    """One peer: what was found out about it, and its loads."""

    peer: Any
    version: str
    side: Any = None
    count: int = 0
    tried: dict[int, float] = field(default_factory=dict)
    stage: Any = None
    """With a worker of its own, where another number of threads than the default is best."""
    threads: int | None = None
    threads_tried: dict[int, float] = field(default_factory=dict)
    compared: int = 0
    rounds: list[tuple[Generated, float]] = field(default_factory=list)
    """Each with the CPU seconds of the serving side."""
    arrival: Generated | None = None


class Run:
    """One run of the plan."""

    def __init__(self, owned: Owned, logs: Path, plan: Plan, say: Say = quiet) -> None:
        from bench.peers.peer import Stage

        self._owned, self._logs, self._plan, self._say = owned, logs, plan, say
        if not plan.names:
            binary("molt-ablation")  # said before the long measurement that it ends, not after
        self._engine = worker.start(owned, logs / "worker-peers.log")
        self._arena_before = self._engine.stat()["arena"]["used_bytes"]
        self._stage = Stage(owned, logs, self._engine)
        self._missing: dict[str, str] = {}
        self._left: list[str] = []

    def all(self) -> dict:
        """What peers.json holds."""
        from bench.peers import catalog

        available, self._missing = catalog.available()
        shown = []
        for workload in sides.workloads():
            chosen = [
                Measured(peer, version)
                for peer, version in available.items()
                if peer.group == workload.group and (not self._plan.names or peer.name in self._plan.names)
            ]
            if chosen:
                shown.append(self._workload(workload, chosen))
        worker.after_clients(self._engine, self._arena_before)
        left = self._left + worker.stop(self._owned, self._engine)
        without = None
        if not self._plan.names:
            self._say("the same entries with and without shared memory")
            without = ablation.measure(self._owned, self._logs, self._plan.without, self._say)
            left += without.pop("left_behind")
        return {
            "users": self._plan.users, "rounds": self._plan.rounds, "seconds": self._plan.seconds, "cores": catalog.CORES,
            "seed": turns.SEED, "workloads": shown, "missing": self._missing, "left_behind": left, "ablation": without,
        }  # fmt: skip

    def _workload(self, workload: Workload, chosen: list[Measured]) -> dict:
        expected = sides.right_answers(self._stage, workload)
        every = [one for one in chosen if self._ready(workload, one, expected)]
        for number in range(1, self._plan.rounds + 1):
            self._say(f"{workload.group}: round {number} of {self._plan.rounds}")
            for one in turns.order(every, number):
                if not self._survives(workload, one, lambda one=one: self._round(workload, one)):
                    every.remove(one)
        rate = 0.0
        if every:
            slowest = min(median(generated.rps for generated, _ in one.rounds) for one in every)
            rate = max(1.0, slowest * self._plan.arrival_share)
        for one in turns.order(every, 0):
            if not self._survives(workload, one, lambda one=one: self._arrivals(workload, one, rate)):
                every.remove(one)
                continue
            sides.end(self._stage, one.side)
            self._end_worker(one.stage)
        return {
            "group": workload.group, "title": workload.title, "arriving": round(rate, 2), "sides": [told(one) for one in every],
        }  # fmt: skip

    def _survives(self, workload: Workload, one: Measured, work: Callable[[], object]) -> bool:
        """Whether the side is there after it. One that has died is told with those that are missing; the others go on."""
        died = sides.survives(one.stage, one.side, work)
        if died is not None:
            self._end_worker(one.stage)
            self._miss(workload, one, died)
        return died is None

    def _miss(self, workload: Workload, one: Measured, reason: str) -> None:
        self._missing[f"{one.peer.name} ({workload.group})"] = reason
        self._say(f"{workload.group}: {one.peer.name}: {reason}")

    def _round(self, workload: Workload, one: Measured) -> None:
        one.rounds.append(self._load(workload, one, self._plan.seconds))

    def _arrivals(self, workload: Workload, one: Measured, rate: float) -> None:
        seconds = max(self._plan.seconds, self._plan.arrivals / rate)
        one.arrival, _ = self._load(workload, one, seconds, rate)

    def _ready(self, workload: Workload, one: Measured, expected: list) -> bool:
        """Starts the side with its best count, compares its answers and warms it up; or notes why it is missing."""
        from bench.peers.peer import Missing

        try:
            one.stage = self._stage
            self._best(workload, one)
            one.side = sides.start(one.stage, one.peer, one.count)
        except Missing as reason:
            self._miss(workload, one, str(reason))
            return False
        one.compared = sides.check(one.peer.name, one.side, workload, expected)
        sides.warm(one.side, workload)
        if not self._survives(workload, one, lambda: self._load(workload, one, self._plan.warm_up)):
            return False
        self._say(f"{workload.group}: {one.peer.name}: {one.count} {one.peer.counted}, {one.compared} answers equal")
        return True

    def _best(self, workload: Workload, one: Measured) -> None:
        """Tries the counts, then the worker's threads, each for a short load, and keeps what answers most."""
        from bench.peers import catalog

        one.count = catalog.CORES if catalog.CORES in one.peer.counts else one.peer.counts[-1]
        if not self._plan.search or len(one.peer.counts) < 2:
            return
        for count in turns.order(one.peer.counts, 0):
            one.count = count
            one.tried[count] = self._tried(workload, one)
        one.count = max(one.tried, key=lambda count: one.tried[count])
        for threads in turns.order(one.peer.threads, 0):
            one.stage = self._with_threads(threads)
            one.threads_tried[threads] = self._tried(workload, one)
            self._end_worker(one.stage)
        one.stage = self._stage
        if one.threads_tried:
            one.threads = max(one.threads_tried, key=lambda threads: one.threads_tried[threads])
            if one.threads != catalog.CORES:
                one.stage = self._with_threads(one.threads)

    def _tried(self, workload: Workload, one: Measured) -> float:
        """Requests a second in a short load; none where it dies of so many processes."""
        one.side = sides.start(one.stage, one.peer, one.count)
        rates = []

        def work() -> None:
            sides.warm(one.side, workload)
            rates.append(self._load(workload, one, self._plan.search_seconds)[0].rps)

        if died := sides.survives(one.stage, one.side, work):
            self._say(f"{workload.group}: {one.peer.name} with {one.count} {one.peer.counted}: {died}")
            return 0.0
        sides.end(one.stage, one.side)
        return round(rates[0], 1)

    def _with_threads(self, threads: int) -> Any:
        """The stage with a worker that has so many threads."""
        engine = worker.start(self._owned, self._logs / "worker-peers.log", ("--threads", str(threads)))
        return replace(self._stage, engine=engine)

    def _end_worker(self, stage: Any) -> None:
        """Ends a worker that one side alone has used."""
        if stage is not self._stage:
            self._left += worker.stop(self._owned, stage.engine)

    def _load(
        self, workload: Workload, one: Measured, seconds: float, rate: float | None = None
    ) -> tuple[Generated, float]:
        return sides.load(one.stage, one.side, workload, seconds, self._plan.users, rate)


PERCENTILES = {"p50_ms": 50.0, "p99_ms": 99.0, "p999_ms": 99.9}
IN_EACH = 2
"""Requests that lie beyond a percentile in each round: the largest of a round alone says nothing."""


def rounded(ms: float | None) -> float | None:
    """As JSON shows it."""
    return None if ms is None else round(ms, ROUNDED)


def over_rounds(rounds: list[Generated], of: float) -> float | None:
    """The median over the rounds of a percentile; None where they do not carry it, all together or each."""
    beyond = [one.requests * (1 - of / 100) for one in rounds]
    if min(beyond) < IN_EACH or not percentile.carried(sum(one.requests for one in rounds), of / 100):
        return None
    return rounded(median(one.latency[f"p({of:g})"] for one in rounds))


def told(one: Measured) -> dict:
    """One side in peers.json: medians over the rounds, least and most, and the load at the common rate."""
    rates = [generated.rps for generated, _ in one.rounds]
    per_cpu = [(generated.requests - generated.errors) / spent if spent else 0.0 for generated, spent in one.rounds]

    assert one.arrival is not None
    return {
        "name": one.peer.name,
        "server": one.peer.server,
        "version": one.version,
        "how": one.peer.how,
        "command": one.side.command,
        "count": one.count,
        "counted": one.peer.counted,
        "tried": {str(count): one.tried[count] for count in sorted(one.tried)},
        "threads": one.threads,
        "threads_tried": {str(threads): one.threads_tried[threads] for threads in sorted(one.threads_tried)},
        "compared": one.compared,
        "rps": round(median(rates), 1),
        "rps_from": round(min(rates), 1),
        "rps_to": round(max(rates), 1),
        **{name: over_rounds([generated for generated, _ in one.rounds], of) for name, of in PERCENTILES.items()},
        "errors": sum(generated.errors for generated, _ in one.rounds),
        "requests_per_cpu_s": round(median(per_cpu), 1),
        "cpu_s": round(median(spent for _, spent in one.rounds), ROUNDED),
        "generator_cpu_s": round(median(generated.generator_cpu_s for generated, _ in one.rounds), ROUNDED),
        "arrival": {
            "answered": round(one.arrival.rps, 1),
            "requests": one.arrival.requests,
            **{name: rounded(one.arrival.ms(of)) for name, of in PERCENTILES.items()},
            "errors": one.arrival.errors,
            "not_started": one.arrival.dropped,
        },
    }


def measure(owned: Owned, logs: Path, plan: Plan, say: Say = quiet) -> dict:
    """Everything that the plan asks for; the shape is in bench/README.md."""
    return Run(owned, logs, plan, say).all()


def tables(found: dict) -> list[Table]:
    """A table for each workload, the fastest first, how each was tuned, and what is missing."""
    out = []
    for workload in found["workloads"]:
        fastest_first = sorted(workload["sides"], key=lambda one: -one["rps"])
        rows = [
            [
                one["name"], f"{one['count']} {one['counted']}", f"{one['rps']:,.0f}", f"{one['rps_from']:,.0f}",
                f"{one['rps_to']:,.0f}", percentile.shown(one["p50_ms"]), percentile.shown(one["p99_ms"]), str(one["errors"]),
                f"{one['requests_per_cpu_s']:,.0f}", f"{one['generator_cpu_s']:.1f}", percentile.shown(one["arrival"]["p99_ms"]),
            ]
            for one in fastest_first
        ]  # fmt: skip
        columns = [
            "side",
            "with",
            "req/s",
            "from",
            "to",
            "p50 ms",
            "p99 ms",
            "errors",
            "req per CPU s",
            "generator CPU s",
        ]
        columns += [f"p99 ms at {workload['arriving']:,.0f}/s"]
        said = f"{found['users']} in flight, {found['rounds']} rounds of {found['seconds']:g} s"
        out.append(Table(f"Beside the alternatives: {workload['title']}, {said}", columns, rows, 2))
        tried = [
            [
                one["name"],
                one["version"],
                one["how"],
                ", ".join(f"{n}: {rps:,.0f}/s" for n, rps in one["tried"].items()),
                ", ".join(f"{n}: {rps:,.0f}/s" for n, rps in one["threads_tried"].items()),
            ]
            for one in fastest_first
        ]
        out.append(
            Table(
                f"How they run: {workload['title']}",
                ["side", "version", "tuned", "counts tried", "worker threads tried"],
                tried,
                5,
            )
        )
    if found["ablation"]:
        out.append(ablation.table(found["ablation"]))
    if found["missing"]:
        out.append(Table("Peers that are missing", ["peer", "why"], [[*one] for one in found["missing"].items()], 2))
    return out


MOLT, GO, PLAIN, TUNED, POLARS, DUCKDB = "molt", "Go", "plain Python", "tuned Python", "Polars", "DuckDB"


def verdicts(found: dict) -> list[Verdict]:
    """S8 and S9 for each server, against what runs under the same one; Go has a server of its own and is set beside both."""
    out: list[Verdict] = []
    for workload in found["workloads"]:
        every = {(one["name"].split(",")[0], one["server"]): one["rps"] for one in workload["sides"]}
        for (name, server), ours in every.items():
            if name == MOLT:
                under = {other: rps for (other, where), rps in every.items() if where in (server, "") and rps}
                judge = _orders if workload["group"] == "orders" else _table
                out += judge(server, ours, under)
    return out


def _orders(server: str, ours: float, under: dict[str, float]) -> list[Verdict]:
    wanted: tuple[tuple[str, float | None, float | None], ...] = ((PLAIN, 5, 10), (TUNED, 2, None), (GO, None, 2.5))
    return [
        Verdict("S8", f"{server}: orders, requests/s: molt against {name}", ours / under[name], must, aim, "x", True)
        for name, must, aim in wanted
        if name in under
    ]


def _table(server: str, ours: float, under: dict[str, float]) -> list[Verdict]:
    out = []
    if PLAIN in under:
        what = f"{server}: table, requests/s: molt against {PLAIN}"
        out.append(Verdict("S9", what, ours / under[PLAIN], 8, 20, "x", True))
    beside = [name for name in (POLARS, DUCKDB) if name in under]
    if beside:
        against = f"the faster of {POLARS} and {DUCKDB}"
        if len(beside) == 1:
            (missing,) = {POLARS, DUCKDB} - {*beside}
            against = f"{beside[0]} ({missing} is missing)"
        what = f"{server}: table, requests/s: molt against {against} inside the view"
        out.append(Verdict("S9", what, ours / max(under[name] for name in beside), 1.3, 2, "x", True))
    return out
