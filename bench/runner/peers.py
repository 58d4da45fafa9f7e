"""molt beside what a team would take instead: one run, all sides in turn. The peers are in bench/peers/, one a file.

For each workload: answers are compared, the best worker count of each side is searched, then every round gives each side its
turn in a closed loop, and at last requests arrive for all at one rate.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import httpx

from . import ablation, data, equal, k6, servers, usage, worker
from .errors import BenchError
from .k6 import Generated
from .owned import Owned
from .scenarios import BASELINE, BASELINE_TABLE
from .tables import Table
from .targets import Verdict

K6_START = 0.7
SETUP = 2.5
FIRST_REQUESTS = 24
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
    names: tuple[str, ...] = ()
    """Only these peers; none: all."""
    without: ablation.Plan = ablation.Plan()
    """How long the entries are called with and without shared memory."""


QUICK = Plan(rounds=2, seconds=1.2, search=False, without=ablation.Plan(rounds=2, turn_seconds=0.05))
CHECK = Plan(users=4, rounds=1, seconds=1.0, search=False, without=ablation.CHECK)
"""Every path once; the figures mean nothing."""


def planned_seconds(plan: Plan) -> float:
    """What it takes, for the progress line."""
    from bench.peers import catalog

    sides = [peer for peer in catalog.PEERS if not plan.names or peer.name in plan.names]
    tried = sum(len(peer.counts) for peer in sides) if plan.search else 0
    loads = plan.rounds * (plan.seconds + K6_START) + plan.warm_up + plan.seconds + 2 * K6_START + SETUP
    without = 0.0 if plan.names else plan.without.total
    return len(sides) * loads + tried * (plan.search_seconds + K6_START + SETUP) + without


def order_cases() -> Iterator[equal.Case]:
    """Those of every run, and generated bodies of which more than half break a rule."""
    yield from equal.order_cases()
    data.app()
    from orders.tests.requests import generated_requests

    for number, body in enumerate(generated_requests(300, seed=5)):
        yield equal.Case(f"generated body {number}", body)


def table_cases() -> Iterator[equal.Case]:
    """Those of every run, and tables that are valid and unusual: nulls, strange regions, batches, wider decimals."""
    yield from equal.table_cases()
    data.app()
    import pyarrow as pa
    import pyarrow.compute as pc
    from orders import table_data

    plain = table_data.table(2_000, seed=9)

    def without(name: str) -> pa.Table:
        """Every seventh value of a column is missing."""
        kept = pa.array([number % 7 != 0 for number in range(plain.num_rows)])
        column = pc.if_else(kept, plain[name].combine_chunks(), pa.scalar(None, plain[name].type))
        return plain.set_column(plain.column_names.index(name), name, column)

    for name in plain.column_names:
        yield equal.Case(f"nulls in {name}", table_data.stream(without(name)))
    strange = pa.array(["atlantis" if number % 5 == 0 else "north" for number in range(plain.num_rows)])
    yield equal.Case("a region that nobody knows", table_data.stream(plain.set_column(0, "region", strange)))
    pieces = pa.concat_tables([plain.slice(0, 3), plain.slice(3, 0), plain.slice(3, 900), plain.slice(903)])
    yield equal.Case("several batches", table_data.stream(pieces))
    yield equal.Case("a slice", table_data.stream(plain.slice(11, 700)))
    wide = plain.schema.set(3, pa.field("price", pa.decimal128(12, 2))).set(
        4, pa.field("discount", pa.decimal128(6, 4))
    )
    yield equal.Case("wider decimals", table_data.stream(plain.cast(wide)))
    yield equal.Case("a column more", table_data.stream(plain.append_column("note", strange)))
    yield equal.Case("a stream that breaks off", table_data.stream(plain)[:2_000])


@dataclass(frozen=True)
class Workload:
    """What all peers of one group are sent."""

    group: str
    title: str
    path: str
    """The plain Python endpoint, whose answers are right."""
    kind: str
    body: Path

    def cases(self) -> Iterator[equal.Case]:
        """What answers are compared on."""
        return order_cases() if self.kind == equal.JSON else table_cases()


def workloads() -> tuple[Workload, ...]:
    """Both."""
    return (
        Workload("orders", "2,000 order lines as JSON", BASELINE.path, equal.JSON, data.body(BASELINE)),
        Workload("table", "10,000 rows as Arrow", BASELINE_TABLE.path, equal.ARROW, data.body(BASELINE_TABLE)),
    )


@dataclass
class Measured:
    """One peer: what was found out about it, and its loads."""

    peer: Any
    version: str
    side: Any = None
    count: int = 0
    tried: dict[int, float] = field(default_factory=dict)
    compared: int = 0
    rounds: list[tuple[Generated, float]] = field(default_factory=list)
    """Each with the CPU seconds of the serving side."""
    arrival: Generated | None = None


class Run:
    """One run of the plan."""

    def __init__(self, owned: Owned, logs: Path, plan: Plan, say=lambda text: None) -> None:
        from bench.peers.peer import Stage

        self._owned, self._logs, self._plan, self._say = owned, logs, plan, say
        self._engine = worker.start(owned, logs / "worker-peers.log")
        self._arena_before = self._engine.stat()["arena"]["used_bytes"]
        self._stage = Stage(owned, logs, self._engine)

    def all(self) -> dict:
        """What peers.json holds."""
        from bench.peers import catalog

        available, missing = catalog.available()
        told = []
        for workload in workloads():
            chosen = [
                Measured(peer, version)
                for peer, version in available.items()
                if peer.group == workload.group and (not self._plan.names or peer.name in self._plan.names)
            ]
            if chosen:
                told.append(self._workload(workload, chosen))
        worker.after_clients(self._engine, self._arena_before)
        left = worker.stop(self._owned, self._engine)
        without = None
        if not self._plan.names:
            self._say("the same entries with and without shared memory")
            without = ablation.measure(self._owned, self._logs, self._plan.without)
            left += without.pop("left_behind")
        return {
            "users": self._plan.users, "rounds": self._plan.rounds, "seconds": self._plan.seconds, "cores": catalog.CORES,
            "workloads": told, "missing": missing, "left_behind": left, "ablation": without,
        }  # fmt: skip

    def _workload(self, workload: Workload, every: list[Measured]) -> dict:
        expected = right_answers(self._stage, workload)
        for one in every:
            self._best(workload, one)
            one.side = one.peer.start(self._stage, one.count)
            one.compared = check(one, workload, expected)
            self._load(workload, one, self._plan.warm_up)
            self._say(
                f"{workload.group}: {one.peer.name}: {one.count} {one.peer.counted}, {one.compared} answers equal"
            )
        for number in range(1, self._plan.rounds + 1):
            for one in every:
                one.rounds.append(self._load(workload, one, self._plan.seconds))
            self._say(f"{workload.group}: round {number} of {self._plan.rounds}")
        rate = max(
            1.0, min(median(generated.rps for generated, _ in one.rounds) for one in every) * self._plan.arrival_share
        )
        for one in every:
            one.arrival, _ = self._load(workload, one, self._plan.seconds, rate)
            self._end(one.side)
        return {
            "group": workload.group, "title": workload.title, "arriving": round(rate, 2), "sides": [told(one) for one in every],
        }  # fmt: skip

    def _best(self, workload: Workload, one: Measured) -> None:
        """Tries the counts, each for a short load, and keeps the one that answers most."""
        from bench.peers import catalog

        one.count = catalog.CORES if catalog.CORES in one.peer.counts else one.peer.counts[-1]
        if not self._plan.search or len(one.peer.counts) < 2:
            return
        for count in one.peer.counts:
            one.side = one.peer.start(self._stage, count)
            self._first(workload, one)
            one.tried[count] = round(self._load(workload, one, self._plan.search_seconds)[0].rps, 1)
            self._end(one.side)
        one.count = max(one.tried, key=lambda count: one.tried[count])

    def _first(self, workload: Workload, one: Measured) -> None:
        """A few requests, so that connections, pools and plans are there."""
        body = workload.body.read_bytes()
        with one.side.client() as client:
            for _ in range(FIRST_REQUESTS):
                equal.answer(client, one.side.path, body, workload.kind)

    def _load(
        self, workload: Workload, one: Measured, seconds: float, rate: float | None = None
    ) -> tuple[Generated, float]:
        """One load, and the CPU seconds that serving it took."""
        more = {"MOLT_PATH": one.side.path, "MOLT_TYPE": workload.kind}
        load = k6.Load("peers/post", one.side.url, workload.body, servers.TOKEN, seconds, self._plan.users, rate, more)
        before = cpu(one.side)
        generated = k6.run(self._owned, load, self._logs / "k6-peers.log", self._logs / "k6-peers.json")
        one.side.child.fail_if_ended()
        self._engine.child.fail_if_ended()
        return generated, cpu(one.side) - before

    def _end(self, side: Any) -> None:
        for thing in (side.child, *side.ends):
            self._owned.end(thing)


def cpu(side: Any) -> float:
    """CPU seconds of all that serves, so far."""
    return sum(usage.of(pid).cpu_s for pid in side.pids)


def right_answers(stage: Any, workload: Workload) -> list[tuple[equal.Case, tuple[int, Any]]]:
    """What plain Python answers to every case."""
    server = servers.start(stage.owned, "gunicorn", stage.engine.shm, stage.logs / "peers-right.log")
    with server.client() as client:
        found = [(case, answer(client, workload.path, case.body, workload.kind)) for case in workload.cases()]
    stage.owned.end(server.child)
    return found


def answer(client: httpx.Client, path: str, body: bytes, kind: str) -> tuple[int, Any]:
    """Status and parsed answer. A table's fault is told in each library's own words: there only its place counts."""
    if kind != equal.JSON:
        return equal.answer(client, path, body, kind)
    response = client.post(path, content=body, headers={"Content-Type": kind})
    if response.status_code not in (200, 400):
        raise BenchError(f"{path} answered {response.status_code}: {response.text[:300]}")
    return response.status_code, response.json()


def check(one: Measured, workload: Workload, expected: list[tuple[equal.Case, tuple[int, Any]]]) -> int:
    """Compares all answers with those of plain Python; gives their number, or raises BenchError."""
    with one.side.client() as client:
        for case, right in expected:
            given = answer(client, one.side.path, case.body, workload.kind)
            if given != right:
                raise BenchError(
                    f"{one.peer.name} ({workload.group}) and plain Python answer differently to a request with {case.what}: "
                    f"{json.dumps(given)[:300]} and {json.dumps(right)[:300]}"
                )
    return len(expected)


def told(one: Measured) -> dict:
    """One side in peers.json: medians over the rounds, least and most, and the load at the common rate."""
    rates = [generated.rps for generated, _ in one.rounds]
    per_cpu = [(generated.requests - generated.errors) / spent if spent else 0.0 for generated, spent in one.rounds]

    def ms(percentile: str) -> float:
        return round(median(generated.latency[percentile] for generated, _ in one.rounds), ROUNDED)

    assert one.arrival is not None
    return {
        "name": one.peer.name,
        "version": one.version,
        "how": one.peer.how,
        "command": one.side.command,
        "count": one.count,
        "counted": one.peer.counted,
        "tried": {str(count): rps for count, rps in one.tried.items()},
        "compared": one.compared,
        "rps": round(median(rates), 1),
        "rps_from": round(min(rates), 1),
        "rps_to": round(max(rates), 1),
        "p50_ms": ms("p(50)"),
        "p99_ms": ms("p(99)"),
        "p999_ms": ms("p(99.9)"),
        "errors": sum(generated.errors for generated, _ in one.rounds),
        "requests_per_cpu_s": round(median(per_cpu), 1),
        "cpu_s": round(median(spent for _, spent in one.rounds), ROUNDED),
        "generator_cpu_s": round(median(generated.generator_cpu_s for generated, _ in one.rounds), ROUNDED),
        "arrival": {
            "answered": round(one.arrival.rps, 1),
            "p50_ms": round(one.arrival.latency["p(50)"], ROUNDED),
            "p99_ms": round(one.arrival.latency["p(99)"], ROUNDED),
            "p999_ms": round(one.arrival.latency["p(99.9)"], ROUNDED),
            "errors": one.arrival.errors,
            "not_started": one.arrival.dropped,
        },
    }


def measure(owned: Owned, logs: Path, plan: Plan, say=lambda text: None) -> dict:
    """Everything that the plan asks for; the shape is in bench/README.md."""
    return Run(owned, logs, plan, say).all()


def tables(found: dict) -> list[Table]:
    """A table for each workload, the fastest first, how each was tuned, and what is missing."""
    out = []
    for workload in found["workloads"]:
        sides = sorted(workload["sides"], key=lambda one: -one["rps"])
        rows = [
            [
                one["name"], f"{one['count']} {one['counted']}", f"{one['rps']:,.0f}", f"{one['rps_from']:,.0f}",
                f"{one['rps_to']:,.0f}", f"{one['p50_ms']:,.1f}", f"{one['p99_ms']:,.1f}", str(one["errors"]),
                f"{one['requests_per_cpu_s']:,.0f}", f"{one['generator_cpu_s']:.1f}", f"{one['arrival']['p99_ms']:,.1f}",
            ]
            for one in sides
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
            ]
            for one in sides
        ]
        out.append(Table(f"How they run: {workload['title']}", ["side", "version", "tuned", "counts tried"], tried, 4))
    if found["ablation"]:
        out.append(ablation.table(found["ablation"]))
    if found["missing"]:
        out.append(Table("Peers that are missing", ["peer", "why"], [[*one] for one in found["missing"].items()], 2))
    return out


MOLT, GO, PLAIN, POLARS, DUCKDB = "molt", "Go", "plain Python", "Polars", "DuckDB"


def verdicts(found: dict) -> list[Verdict]:
    """S8's aim against Go; S9 against Polars and DuckDB inside the view. molt counts under the server that is better for it."""
    out: list[Verdict] = []
    for workload in found["workloads"]:
        rps = {one["name"]: one["rps"] for one in workload["sides"]}
        ours = max((rate for name, rate in rps.items() if name.split(",")[0] == MOLT), default=0.0)
        if workload["group"] == "orders" and rps.get(GO):
            out.append(
                Verdict("S8", "orders, requests/s: molt against Go: an aim only", ours / rps[GO], 2.5, None, "x", True)
            )
        beside = [rps[name] for name in (POLARS, DUCKDB) if rps.get(name)]
        if workload["group"] == "table" and beside:
            what = "table, requests/s: molt against the faster of Polars and DuckDB inside the view"
            out.append(Verdict("S9", what, ours / max(beside), 1.3, 2, "x", True))
    return out
