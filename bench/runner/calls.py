"""S2 and S3: single calls from Python beside their peers, and what a call costs when the cores are busy.

In every round each peer has its turns, one right after the other, so that what disturbs the machine meets all of them.
"""

import json
import os
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from statistics import median

from . import child, echo, usage
from .child import until
from .errors import BenchError
from .owned import Owned
from .paths import ROOT
from .worker import Worker

PAYLOAD = bytes(range(64))
MOLT = "molt"
PEERS = (MOLT, *echo.MODULES)
HOT, ASLEEP = "hot", "asleep"

ROUNDS = 7
HOT_CALLS = 3_000
WARM_CALLS = 600  # both sides find out that spinning pays
SLEEPY_CALLS = 60
# Long enough that both sides have gone to sleep: this is what is measured, not a wait for something.
PAUSE_SECONDS = 0.003
SATURATED_SECONDS = 2.0


def measure(owned: Owned, engine: Worker, logs: Path, rounds: int = ROUNDS) -> dict:
    """`rows`: medians over the rounds in microseconds, one for each peer and way. `missing`: peers, and why."""
    import molt_accel

    missing: dict[str, str] = {}
    turns: dict[tuple[str, str], list[dict]] = {}
    with ExitStack() as opened:
        asks: dict[str, echo.Ask] = {}
        for name in PEERS:
            if name == MOLT:
                client = opened.enter_context(molt_accel.attach(shm=engine.shm))
                asks[name] = lambda payload, call=client.call: call("echo", payload, "raw")
                continue
            try:
                asks[name] = opened.enter_context(_served(owned, name, engine.folder, logs))
            except ImportError as reason:
                missing[name] = f"not installed: {reason}"
        for name, ask in asks.items():
            check(name, ask)
        for _ in range(rounds):
            for way, turn in ((HOT, _hot), (ASLEEP, _asleep)):
                for name, ask in asks.items():
                    turns.setdefault((way, name), []).append(figures(turn(ask)))
    rows = [{"way": way, "peer": name, **medians(found)} for (way, name), found in turns.items()]
    return {"rows": rows, "missing": missing}


def check(name: str, ask: echo.Ask) -> None:
    """Compares answers before anything is timed."""
    for payload in (PAYLOAD, bytes(reversed(PAYLOAD))):
        if (answer := ask(payload)) != payload:
            raise BenchError(f"{name} does not echo: {payload!r} came back as {answer!r}")


def _served(owned: Owned, name: str, folder: Path, logs: Path):
    """A client of that echo, whose process is started here."""
    peer = echo.load(name)
    module = echo.MODULES[name]
    place = folder / module
    command: child.Command = [sys.executable, "-m", "bench.runner.echo", name, place]
    running = child.start(owned, f"the {name} echo", command, logs / f"echo-{module}.log", cwd=ROOT)
    until(place.is_socket, f"that {running} listens", 10, running)
    return peer.connected(place)


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


def figures(nanoseconds: list[int]) -> dict[str, float]:
    """Percentiles and mean, microseconds."""
    ordered = sorted(nanoseconds)

    def at(share: float) -> float:
        return ordered[min(int(len(ordered) * share), len(ordered) - 1)] / 1e3

    return {"p50_us": at(0.5), "p99_us": at(0.99), "p999_us": at(0.999), "mean_us": sum(ordered) / len(ordered) / 1e3}


def medians(turns: list[dict[str, float]]) -> dict[str, float]:
    """The median of each figure over the turns, and the least and the largest p50 of a turn."""
    p50s = [turn["p50_us"] for turn in turns]
    return {
        **{key: median(turn[key] for turn in turns) for key in turns[0]},
        "p50_from_us": min(p50s),
        "p50_to_us": max(p50s),
        "rounds": len(turns),
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
