"""A supervised worker is killed with SIGKILL and later upgraded in place (SIGHUP to its supervisor) while requests arrive
at a constant rate: one record for each request, and the moments.

Requests are sent when they are due, whatever has become of the earlier ones, and each time counts from when its request
was due. The order summary is declared idempotent, which it is: what the killed worker was running is run again. The
rate is a share of what a closed loop shows to be possible, so the machine is busy, not full.
"""

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from . import child, data, k6, manifest, overload, servers, worker
from .child import until
from .errors import BenchError
from .owned import Owned
from .paths import ROOT
from .say import Say, quiet
from .scenarios import at_lines
from .tables import Table
from .targets import Verdict
from .worker import Worker

KILL, UPGRADE = "kill -9 of the worker", "upgrade in place (SIGHUP)"
PLACES = (overload.CLIENT, overload.WSGI)
ANSWERED = "answered"
SETUP = 4.0  # seconds at each place, for the progress line: the start of worker and server, the closed loop, the end
BACK_SECONDS = 60.0
LOOK_SECONDS = 0.02
WARM_CALLS = 25
"""More than the generators make before their load begins."""
USERS = 200
"""In flight in k6 at most."""


@dataclass(frozen=True)
class Plan:
    """How long and how hard. The kill comes after a third of the seconds, the upgrade after two."""

    seconds: float = 24.0
    share: float = 0.4
    """Of what the closed loop shows."""
    most: float = 200.0
    """Requests a second: the page draws each of them."""
    capacity_seconds: float = 2.0
    deadline: float = 20.0
    """Nobody gives up sooner: a slow answer is drawn as slow, a failure is the service's own."""
    lines: int = 200

    @property
    def total(self) -> float:
        """Seconds that all of it takes."""
        return len(PLACES) * (self.seconds + self.capacity_seconds + SETUP)


QUICK = Plan(seconds=9.0)
CHECK = Plan(seconds=9.0, capacity_seconds=1.0, most=60.0, lines=20)
"""Every path once; the figures mean nothing."""


def planned_seconds(plan: Plan) -> float:
    """How long it takes, for the progress line."""
    return plan.total


@dataclass(frozen=True)
class Moment:
    """Something was done to the worker, and another process served."""

    what: str
    at_s: float
    back_s: float
    """When `molt-shm-stat` named the next worker; looked at every 20 ms."""


def measure(owned: Owned, logs: Path, plan: Plan, say: Say = quiet) -> dict:
    """`places`: for each its rate, the moments, and all requests in columns; seconds count from the first due one."""
    exports = manifest.changed(owned, timeout_ms=int(plan.deadline * 1000), idempotent=True)
    body = data.body(at_lines(plan.lines)[1])
    shown, left = [], []
    for place in PLACES:
        name = overload.COMMANDS.get(place, place)
        more = {"MOLT_EXPORTS": str(exports)}
        engine = worker.start(owned, logs / f"timeline-worker-{name}.log", ("--supervise",), more)
        server = None
        if place in overload.COMMANDS:
            server = servers.start(owned, name, engine.shm, logs / f"timeline-{name}.log", more)
        say(f"{name}: a closed loop")
        loads = overload.Plan(capacity_seconds=plan.capacity_seconds, deadline=plan.deadline, lines=plan.lines)
        capacity = overload.Place(owned, logs, place, engine, server, body, loads).capacity()
        rate = round(min(plan.most, max(5.0, plan.share * capacity)), 1)
        say(f"{name}: {rate:,.0f} requests/s arriving, a kill and an upgrade")
        disturber = Disturber(engine, plan.seconds)
        disturber.start()
        if server is None:
            records = _library(owned, engine, body, rate, plan, logs)
        else:
            records = _django(owned, server, body, rate, plan, logs)
        shown.append(_place(place, rate, capacity, records, disturber.done()))
        if server is not None:
            owned.end(server.child)
        left += worker.stop(owned, engine)
    return {"plan": asdict(plan), "places": shown, "left_behind": left}


class Disturber(threading.Thread):
    """Kills the worker after a third of the time, has it replaced after two. A thread: the load blocks the main one."""

    def __init__(self, engine: Worker, seconds: float) -> None:
        super().__init__(name="disturber", daemon=True)
        self._engine = engine
        self._seconds = seconds
        self._moments: list[Moment] = []
        self._failed: Exception | None = None

    def run(self) -> None:
        """Does both, and waits after each until another worker serves."""
        try:
            wanted = self._calls() + WARM_CALLS
            until(lambda: self._calls() > wanted, "that requests arrive", BACK_SECONDS)
            began = time.monotonic()
            for share, what in ((1 / 3, KILL), (2 / 3, UPGRADE)):
                time.sleep(max(0.0, began + share * self._seconds - time.monotonic()))
                before = self._engine.serving()
                at = time.time()
                if what == KILL:
                    os.kill(before, signal.SIGKILL)
                else:
                    os.kill(self._engine.pid, signal.SIGHUP)
                self._moments.append(Moment(what, at, self._next(before)))
        except Exception as reason:  # told to the main thread by `done`
            self._failed = reason

    def _calls(self) -> int:
        return next(one["calls"] for one in self._engine.stat()["entries"] if one["name"] == manifest.ENTRY)

    def _next(self, before: int) -> float:
        deadline = time.monotonic() + BACK_SECONDS
        while time.monotonic() < deadline:
            try:
                if self._engine.serving() not in (0, before):
                    return time.time()
            except BenchError:
                pass  # between the two there is nothing to read
            time.sleep(LOOK_SECONDS)
        raise BenchError(f"no worker follows process {before} within {BACK_SECONDS:.0f} s")

    def done(self) -> list[Moment]:
        """Both moments, when the load is over; raises what went wrong."""
        self.join(2 * BACK_SECONDS + self._seconds)
        if self._failed is not None:
            raise self._failed
        return self._moments


Record = tuple[float, float, str]
"""When a request was due (wall clock, seconds), its milliseconds, and `answered` or what it got instead."""


def _library(owned: Owned, engine: Worker, body: Path, rate: float, plan: Plan, logs: Path) -> list[Record]:
    out = logs / "timeline-client.json"
    numbers = [str(number) for number in (rate, plan.seconds, plan.deadline)]
    command: child.Command = [sys.executable, "-m", "bench.runner.arrivals", engine.shm, body, *numbers, out]
    running = child.start(owned, "the open loop", command, logs / "timeline-client.log", cwd=ROOT)
    status = running.wait(plan.seconds + plan.deadline + 60)
    owned.end(running)
    if status:
        raise BenchError(f"{running} failed. Its last lines:\n{running.tail()}")
    good = ("in_time", "late")
    return [(due, ms, ANSWERED if said in good else said) for due, ms, said in json.loads(out.read_text())]


def _django(owned: Owned, server: servers.Server, body: Path, rate: float, plan: Plan, logs: Path) -> list[Record]:
    samples = logs / "timeline-samples.json"
    more = {"MOLT_PATH": overload.PATHS[overload.WSGI], "MOLT_DEADLINE_MS": f"{plan.deadline * 1000:g}"}
    load = k6.Load("open/overload", server.url, body, servers.TOKEN, plan.seconds, USERS, rate, more)
    summary, _ = k6.raw(owned, load, logs / "k6-timeline.log", logs / "k6-timeline.json", samples)
    records = list(_samples(samples))
    samples.unlink()
    dropped = summary["metrics"].get("dropped_iterations", {}).get("values", {}).get("count", 0)
    if dropped:
        raise BenchError(f"k6 had nobody to send {dropped:.0f} of the requests", f"all its {USERS} users were waiting")
    return records


def _samples(path: Path) -> Iterator[Record]:
    """The requests in k6's samples: each says at its end how long it took since it was due."""
    with path.open() as lines:
        for line in lines:
            sample = json.loads(line)
            if sample["type"] != "Point" or sample["metric"] != "took_ms":
                continue
            told = sample["data"]
            ended, ms = datetime.fromisoformat(told["time"]).timestamp(), told["value"]
            tags = told["tags"]
            good = tags["outcome"] in ("in_time", "late")
            yield ended - ms / 1000, ms, ANSWERED if good else f"HTTP {tags['answered']}, {tags['outcome']}"


def _place(name: str, rate: float, capacity: float, records: list[Record], moments: list[Moment]) -> dict:
    records = sorted(records)
    first = records[0][0]
    found = {
        "place": name,
        "rate": rate,
        "capacity": round(capacity, 1),
        "sent": len(records),
        "failed": sum(said != ANSWERED for _, _, said in records),
        "moments": [
            {"what": one.what, "at_s": round(one.at_s - first, 3), "back_s": round(one.back_s - first, 3)}
            for one in moments
        ],
        "requests": {
            "due_s": [round(due - first, 4) for due, _, _ in records],
            "ms": [round(ms, 3) for _, ms, _ in records],
            "outcome": [said for _, _, said in records],
        },
    }
    for moment in found["moments"]:
        moment.update(around(found, moment))
    return found


AFTER = 2.0


def around(place: dict, moment: dict) -> dict:
    """The requests that were on their way at a moment or due until two seconds after the next worker served."""
    requests = place["requests"]
    every = zip(requests["due_s"], requests["ms"], requests["outcome"], strict=True)
    near = [
        (ms, said) for due, ms, said in every if due + ms / 1000 >= moment["at_s"] and due <= moment["back_s"] + AFTER
    ]
    return {
        "requests": len(near),
        "failed": sum(said != ANSWERED for _, said in near),
        "slowest_ms": round(max((ms for ms, _ in near), default=0.0), 1),
    }


def calm_p99(place: dict) -> float:
    """The p99 of the requests before the first moment, milliseconds."""
    first = min(moment["at_s"] for moment in place["moments"])
    requests = place["requests"]
    calm = sorted(ms for due, ms in zip(requests["due_s"], requests["ms"], strict=True) if due + ms / 1000 < first)
    return calm[int(0.99 * (len(calm) - 1))] if calm else 0.0


def named(place: str) -> str:
    """What a reader calls the place."""
    return {overload.CLIENT: "the client library", overload.WSGI: "Django under gunicorn"}.get(place, place)


def table(found: dict) -> Table:
    """A row a moment."""
    rows = [
        [
            named(place["place"]),
            moment["what"],
            f"{place['rate']:,.0f}",
            f"{place['sent']:,}",
            f"{place['failed']:,}",
            f"{(moment['back_s'] - moment['at_s']) * 1000:,.0f}",
            f"{moment['slowest_ms']:,.0f}",
            f"{calm_p99(place):,.1f}",
        ]
        for place in found["places"]
        for moment in place["moments"]
    ]
    columns = ["at", "what was done", "arriving/s", "sent", "failed"]
    columns += ["ms until the next worker", "slowest ms", "calm p99 ms"]
    return Table("A kill and an upgrade under load", columns, rows)


def tables(found: dict) -> list[Table]:
    """The one table."""
    return [table(found)]


def verdicts(found: dict) -> list[Verdict]:
    """No request of an idempotent entry may fail."""
    return [
        Verdict("kill", f"{named(one['place'])}: failed of {one['sent']:,} requests", one["failed"], 0, None)
        for one in found["places"]
    ]
