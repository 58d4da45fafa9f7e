"""S2 and S3: single calls from Python beside their peers, and what a call costs when the cores are busy.

In every round each peer has its turns, one right after the other, so that what disturbs the machine meets all of them; in
another order each time. Percentiles are of all calls of a way, where they carry them.
"""

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median

from . import child, echo, percentile, turns, usage
from .child import until
from .errors import BenchError
from .owned import Owned
from .paths import ROOT
from .worker import Worker

PAYLOAD = bytes(range(64))
MOLT = "molt"
PEERS = (MOLT, *echo.MODULES)
HOT, APART, ASLEEP = "hot", "hot, a core each", "asleep"
"""APART: client and server are each held on a core of its own, since the scheduler may put two that wake each other on one
core, where a wake-up is a switch and no idle core has to come up: which it does differs by machine and by moment."""

ROUNDS = 7
HOT_CALLS = 3_000
WARM_CALLS = 600  # both sides find out that spinning pays
SLEEPY_CALLS = 150
# Long enough that both sides have gone to sleep: this is what is measured, not a wait for something.
PAUSE_SECONDS = 0.003
SATURATED_SECONDS = 2.0


def measure(owned: Owned, engine: Worker, logs: Path, rounds: int = ROUNDS) -> dict:
    """`rows`: medians over the rounds in microseconds, one for each peer and way. `missing`: peers, and why."""
    import molt_accel

    missing: dict[str, str] = {}
    took: dict[tuple[str, str], list[list[int]]] = {}
    with ExitStack() as opened:
        asks: dict[str, echo.Ask] = {}
        servers = {MOLT: engine.serving()}
        for name in PEERS:
            if name == MOLT:
                client = opened.enter_context(molt_accel.attach(shm=engine.shm))
                asks[name] = lambda payload, call=client.call: call("echo", payload, "raw")
                continue
            try:
                connected, servers[name] = _served(owned, name, engine.folder, logs)
                asks[name] = opened.enter_context(connected)
            except ImportError as reason:
                missing[name] = f"not installed: {reason}"
        for name, ask in asks.items():
            check(name, ask)
        for number in range(rounds):
            for way, turn in ((HOT, _hot), (APART, _hot), (ASLEEP, _asleep)):
                for name in turns.order(asks, number):
                    with apart(servers[name]) if way == APART else ExitStack():
                        took.setdefault((way, name), []).append(turn(asks[name]))
    rows = [{"way": way, "peer": name, **figures(took[way, name])} for way in (HOT, APART, ASLEEP) for name in asks]
    return {"rows": rows, "missing": missing}


@contextmanager
def apart(server: int) -> Iterator[None]:
    """Holds this thread on one core and all threads of the process `server` on the others. Where there is only one core,
    both stay there."""
    allowed = os.sched_getaffinity(0)
    mine, *others = sorted(allowed)
    threads = [int(thread) for thread in os.listdir(f"/proc/{server}/task")]
    for thread in threads:
        os.sched_setaffinity(thread, others or [mine])
    os.sched_setaffinity(0, [mine])
    try:
        yield
    finally:
        for thread in (0, *threads):
            os.sched_setaffinity(thread, allowed)


def check(name: str, ask: echo.Ask) -> None:
    """Compares answers before anything is timed."""
    for payload in (PAYLOAD, bytes(reversed(PAYLOAD))):
        if (answer := ask(payload)) != payload:
            raise BenchError(f"{name} does not echo: {payload!r} came back as {answer!r}")


def _served(owned: Owned, name: str, folder: Path, logs: Path):
    """A client of that echo, and the process that serves, which is started here."""
    peer = echo.load(name)
    module = echo.MODULES[name]
    place = folder / module
    command: child.Command = [sys.executable, "-m", "bench.runner.echo", name, place]
    running = child.start(owned, f"the {name} echo", command, logs / f"echo-{module}.log", cwd=ROOT)
    until(lambda: listens(place), f"that {running} listens", 10, running)
    return peer.connected(place), running.pid


def listens(place: Path) -> bool:
    """Whether connections to a socket are taken: its name is there a moment before."""
    accepting = "00010000"  # the flags of a socket that listens
    lines = (line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:])
    return any(line[3] == accepting and line[-1] == str(place) for line in lines)


def _hot(ask: echo.Ask) -> list[int]:
    """Nanoseconds of calls one right after the other."""
    clock = time.perf_counter_ns
    for _ in range(WARM_CALLS):
        ask(PAYLOAD)
    times = [clock()]
    for _ in range(HOT_CALLS):
        ask(PAYLOAD)
        times.append(clock())
    return [after - before for before, after in zip(times, times[1:], strict=False)]


def _asleep(ask: echo.Ask) -> list[int]:
    """Nanoseconds of the calls of somebody who comes seldom."""
    clock = time.perf_counter_ns
    took = []
    for _ in range(SLEEPY_CALLS):
        time.sleep(PAUSE_SECONDS)
        began = clock()
        ask(PAYLOAD)
        took.append(clock() - began)
    return took


def figures(rounds: list[list[int]]) -> dict[str, float | None]:
    """Microseconds, of nanoseconds by round: the medians over the rounds of p50 and mean, the least and the largest p50 of a
    round, and the higher percentiles of all calls together; None where they are too few."""
    every = sorted(one / 1e3 for calls in rounds for one in calls)
    p50s = [median(calls) / 1e3 for calls in rounds]
    return {
        "p50_us": median(p50s),
        "p99_us": percentile.at(every, 0.99),
        "p999_us": percentile.at(every, 0.999),
        "mean_us": median(sum(calls) / len(calls) / 1e3 for calls in rounds),
        "p50_from_us": min(p50s),
        "p50_to_us": max(p50s),
        "rounds": len(rounds),
    }


def saturated(owned: Owned, engine: Worker, logs: Path, seconds: float = SATURATED_SECONDS) -> dict:
    """S3: more processes than cores call `echo` for a while; processor time of all of them and of the worker, a call."""
    count = 2 * len(os.sched_getaffinity(0))
    command: child.Command = [sys.executable, "-m", "bench.runner.caller", engine.shm, str(seconds)]
    before = usage.cpu_seconds(engine.pid)
    callers = [
        child.start(owned, "a caller", command, logs / f"caller-{number}.log", cwd=ROOT) for number in range(count)
    ]
    told = []
    for caller in callers:
        if caller.wait(seconds + 60):
            raise BenchError(f"{caller} failed. Its last lines:\n{caller.tail()}")
        told.append(json.loads(caller.tail(1)))
    worker_s = usage.cpu_seconds(engine.pid) - before
    calls = sum(one["calls"] for one in told)
    return {
        "processes": count,
        "calls": calls,
        "client_us": sum(one["cpu_s"] for one in told) / calls * 1e6,
        "worker_us": worker_s / calls * 1e6,
        "cpu_us": (sum(one["cpu_s"] for one in told) + worker_s) / calls * 1e6,
    }
