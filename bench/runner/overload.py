"""S11: what is answered in time when more arrives than can be answered, from half to twice the capacity.

For each place (the client library; Django under an ASGI and under a WSGI server) a closed loop shows how much can be
answered at most; then requests arrive at shares of that rate, in an open loop: when they are due, not when there is
room. Times count from when a request was due. The order summary is the work, with a deadline of its own in the
manifest, which the worker keeps.
"""

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from . import child, data, manifest, percentile, servers, turns, usage, worker
from .child import Child
from .errors import BenchError
from .owned import Owned
from .paths import ROOT
from .say import Say, quiet
from .scenarios import OFFLOAD, at_lines
from .servers import Server
from .tables import Table
from .targets import Verdict
from .worker import Worker

CLIENT, ASGI, WSGI = "client", "ASGI", "WSGI"
PATHS = {ASGI: "/aoffload/", WSGI: "/offload/"}
COMMANDS = {ASGI: "granian-asgi", WSGI: "gunicorn"}
JUDGED = (CLIENT, ASGI)
SETTLING = 2.0
"""Seconds until a server is through with a rate; for the planned length."""
SETTLE_SECONDS = 120.0
OUTCOMES = ("in_time", "late", "busy", "timeout", "gave_up", "other")


@dataclass(frozen=True)
class Plan:
    """How much is measured. `deadline` in seconds, from when a request was due."""

    shares: tuple[float, ...] = (0.5, 0.75, 1.0, 1.25, 1.5, 2.0)
    seconds: float = 10.0
    capacity_seconds: float = 5.0
    deadline: float = 0.5
    lines: int = OFFLOAD.lines
    queue: int | None = None
    """Requests that may wait in the worker, if not as many as it allows by itself."""


CHECK = Plan(shares=(0.5, 2.0), seconds=1.0, capacity_seconds=1.0, deadline=2.0, lines=200)
"""Every path once; the figures mean nothing."""


@dataclass(frozen=True)
class Step:
    """One rate at one place. Rates in requests a second."""

    place: str
    share: float
    rate: float
    seconds: float
    sent: int
    in_time: int
    late: int
    busy: int
    timeout: int
    gave_up: int
    other: int
    p50_ms: float | None
    p99_ms: float | None
    p999_ms: float | None
    """Of those accepted; None where they are too few to carry it."""
    max_ms: float | None
    behind_p99_ms: float
    """How late the generator itself sent them."""

    @property
    def answered(self) -> float:
        """Answers in time, a second."""
        return self.in_time / self.seconds


def measure(owned: Owned, logs: Path, plan: Plan, say: Say = quiet) -> dict:
    """`capacity` by place, `steps` in order, and `left_behind`: names that a worker should have removed."""
    exports = manifest.changed(owned, timeout_ms=int(plan.deadline * 1000))
    body = data.body(at_lines(plan.lines)[1])
    steps: list[Step] = []
    capacity: dict[str, float] = {}
    left: list[str] = []
    for number, place in enumerate((CLIENT, ASGI, WSGI)):
        name = COMMANDS.get(place, place)
        more = {"MOLT_EXPORTS": str(exports)}
        flags = () if plan.queue is None else ("--queue", str(plan.queue))
        engine = worker.start(owned, logs / f"worker-{name}.log", flags, more)
        arena_before = engine.stat()["arena"]["used_bytes"]
        server = None
        if place in COMMANDS:
            server = servers.start(owned, COMMANDS[place], engine.shm, logs / f"{name}.log", more)
        at = Place(owned, logs, place, engine, server, body, plan)
        say(f"{name}: a closed loop")
        capacity[place] = at.capacity()
        asked = {}
        for share in turns.order(plan.shares, number):
            say(f"{name}: {share:g} times its {capacity[place]:,.0f} requests/s")
            asked[share] = at.step(share, capacity[place])
            engine.child.fail_if_ended()
        steps += [asked[share] for share in plan.shares]
        if server is not None:
            server.child.fail_if_ended()
            owned.end(server.child)
        worker.after_clients(engine, arena_before)
        left += worker.stop(owned, engine)
    told = [{**asdict(step), "answered": step.answered} for step in steps]
    return {"plan": asdict(plan), "capacity": capacity, "steps": told, "left_behind": left}


@dataclass
class Place:
    """Somewhere that requests are sent to: the client library, or Django under a server."""

    owned: Owned
    logs: Path
    name: str
    engine: Worker
    server: Server | None
    body: Path
    plan: Plan

    def capacity(self) -> float:
        """Answers a second of a closed loop."""
        return self._seen(0.0, self.plan.capacity_seconds)["in_time"] / self.plan.capacity_seconds

    def step(self, share: float, capacity: float) -> Step:
        """Requests arrive at that share of what can be answered."""
        rate, seconds = max(1.0, share * capacity), self.plan.seconds
        if self.server is not None:
            settle(self.server.child)
        return Step(self.name, share, rate, seconds, **self._seen(rate, seconds))

    def _seen(self, rate: float, seconds: float) -> dict:
        """What became of the requests of one load; a rate of 0 is a closed loop."""
        numbers = [f"{number}" for number in (rate, seconds, self.plan.deadline)]
        if self.server is None:
            arguments = ["bench.runner.arrivals", self.engine.shm, self.body, *numbers]
        else:
            url = f"{self.server.url}{PATHS[self.name]}"
            arguments = ["bench.runner.web_arrivals", url, servers.TOKEN, self.body, *numbers]
        command: child.Command = [sys.executable, "-m", *arguments]
        log = self.logs / f"arrivals-{self.name}-{rate:.0f}.log"
        running = child.start(self.owned, "the open loop", command, log, cwd=ROOT)
        status = running.wait(seconds + 60)
        self.owned.end(running)
        if status:
            raise BenchError(f"{running} failed. Its last lines:\n{running.tail()}")
        return json.loads(running.tail(1))


def settle(server: Child) -> None:
    """Waits until a server is through with what an earlier rate left: it works on requests whose clients have hung up,
    and a rate that it could well answer would find their queue."""
    child.until(lambda: usage.at_rest(server.pid), f"that {server} has nothing left to do", SETTLE_SECONDS, server)


def peaks(found: dict) -> dict[str, float]:
    """The most answers in time a second, over all rates, by place."""
    out: dict[str, float] = {}
    for step in found["steps"]:
        out[step["place"]] = max(out.get(step["place"], 0.0), step["answered"])
    return out


def table(found: dict) -> Table:
    """One row a rate."""
    columns = ["place", "load", "arriving/s", "in time/s", "of peak", "p50 ms", "p99 ms", "p99.9 ms", "longest ms"]
    columns += ["busy", "late", "hung up", "other", "behind ms"]
    peak = peaks(found)
    rows = []
    for step in found["steps"]:
        best = peak[step["place"]]
        rows.append(
            [
                step["place"],
                f"{step['share']:g}x",
                f"{step['rate']:,.0f}",
                f"{step['answered']:,.0f}",
                f"{step['answered'] / best:.0%}" if best else "–",
                *(percentile.shown(step[key], 0) for key in ("p50_ms", "p99_ms", "p999_ms", "max_ms", "busy")),
                f"{step['late'] + step['timeout']:,}",
                *(f"{step[key]:,}" for key in ("gave_up", "other")),
                percentile.shown(step["behind_p99_ms"], 0),
            ]
        )
    deadline = found["plan"]["deadline"] * 1000
    title = (
        f"Overload: answers within {deadline:g} ms of when their requests were due. client: the client library; ASGI, "
        "WSGI: Django under granian and gunicorn"
    )
    return Table(title, columns, rows, left=1)


def verdicts(found: dict) -> list[Verdict]:
    """S11, at twice the capacity."""
    peak, deadline = peaks(found), found["plan"]["deadline"] * 1000
    out = []
    for step in found["steps"]:
        if step["share"] != 2.0 or step["place"] not in JUDGED or not peak[step["place"]]:
            continue
        share = 100 * step["answered"] / peak[step["place"]]
        out.append(Verdict("S11", f"{step['place']}: in time, of peak", share, 90, 97, "%", at_least=True))
        out.append(_tail(step, deadline))
    return out


def _tail(step: dict, deadline: float) -> Verdict:
    """Of too few requests to carry p99.9 the longest one, which is more."""
    what = f"{step['place']}: p99.9 of those accepted"
    if (measured := step["p999_ms"]) is None:
        what, measured = f"{what}; the longest of {step['sent']:,}, too few for it", step["max_ms"] or 0.0
    return Verdict("S11", what, measured, deadline, deadline / 2, " ms")
