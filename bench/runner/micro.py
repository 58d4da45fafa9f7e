"""Single calls from Python, and both sides by themselves: S2 and S3 (echo), S12 (the worker's start, memory, size), S13 (the
client's import and memory), S14 (compute), S10."""

import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from statistics import median
from typing import Any

from . import break_even, calls, child, footprint, usage, worker
from .errors import BenchError
from .owned import Owned
from .paths import EXPORTS, binary
from .say import Say, quiet
from .worker import Worker

MB = 1e6


@dataclass(frozen=True)
class Plan:
    """How often each is looked at."""

    rounds: int = 7
    starts: int = 5
    """Of the worker."""
    imports: int = footprint.IMPORTS
    processes: int = footprint.PROCESSES
    """That attach a client."""


QUICK = Plan(2, 2, 5, 1)
CHECK = Plan(1, 1, 1, 1)
"""Every path once; the figures mean nothing."""


def planned_seconds(plan: Plan) -> float:
    """What it takes, for the progress line."""
    return 6.0 + 4.2 * plan.rounds + 0.5 * plan.starts + 0.3 * plan.imports + 0.9 * plan.processes


def measure(owned: Owned, logs: Path, plan: Plan, say: Say = quiet) -> dict:
    """All figures, in microseconds per call, milliseconds and MB (10^6 bytes); medians of alternating rounds."""
    say("the worker's start")
    started = [first_answer_ms(owned, logs) for _ in range(plan.starts)]
    engine = worker.start(owned, logs / "worker-micro.log")
    try:
        idle_mb = usage.private_mb(engine.pid)
        say("single calls")
        echoes = calls.measure(owned, engine, logs, plan.rounds)
        say("callers without pause")
        saturated = calls.saturated(owned, engine, logs)
        say("the entry `compute`")
        compute = _compute(engine, plan.rounds)
        say("where an entry begins to pay")
        pays = break_even.measure(owned, engine, logs, plan.rounds)
        say("what the client adds to Django")
        client_mb = footprint.client_mb(owned, engine, logs, plan.processes)
    finally:
        worker.stop(owned, engine)
    return {
        "echo_64_bytes": echoes,
        "saturated": saturated,
        "compute_us": compute,
        "break_even": pays,
        "import_ms": footprint.import_ms(plan.imports),
        "client_mb": client_mb,
        "worker": {
            "first_answer_ms": median(started),
            "idle_mb": idle_mb,
            "stripped_mb": stripped_mb(owned, binary("molt_worker")),
        },
    }


def first_answer_ms(owned: Owned, logs: Path) -> float:
    """From the start of the process to the first answer that a Python client holds, with the default flags."""
    import molt_accel

    folder = owned.start(
        lambda: Path(tempfile.mkdtemp(prefix="molt-bench-")), partial(shutil.rmtree, ignore_errors=True)
    )
    shm = f"/{folder.name}"
    owned.start(lambda: shm, worker.unlink)
    command: child.Command = [
        binary("molt_worker"),
        "--shm",
        shm,
        "--socket",
        folder / "molt.sock",
        "--exports",
        EXPORTS,
    ]
    began = time.perf_counter()
    running = child.start(owned, "molt_worker", command, logs / "worker-start.log")
    with molt_accel.attach(shm=shm, wait=worker.START_SECONDS) as client:
        client.call("health")
        took = time.perf_counter() - began
    for thing in (running, shm, folder):
        owned.end(thing)
    return took * 1000


def stripped_mb(owned: Owned, program: Path) -> float:
    """The size of a binary without its symbols."""
    folder = owned.start(
        lambda: Path(tempfile.mkdtemp(prefix="molt-bench-")), partial(shutil.rmtree, ignore_errors=True)
    )
    copy = folder / program.name
    done = subprocess.run(["strip", "-o", copy, program], capture_output=True, text=True)
    if done.returncode:
        raise BenchError(f"strip cannot read {program}: {done.stderr.strip()}")
    size = copy.stat().st_size / MB
    owned.end(folder)
    return size


def _compute(engine: Worker, rounds: int) -> dict[str, float]:
    import molt_accel

    with molt_accel.attach(shm=engine.shm) as client:
        return {str(count): _compute_us(client, count, rounds) for count in (3, 10_000)}


def _hot_us(ask: Callable[[], object], repeats: int) -> float:
    """Microseconds per call, one right after the other."""
    began = time.perf_counter()
    for _ in range(repeats):
        ask()
    return (time.perf_counter() - began) / repeats * 1e6


def _compute_us(client: Any, count: int, rounds: int) -> float:
    """Microseconds per call of `compute` with so many numbers, encoding and decoding included."""
    random = Random(1)
    values = [random.uniform(-1e6, 1e6) for _ in range(count)]
    payload = {"values": values, "scale": 2.0, "offset": 1.0}
    answered = client.call("compute", payload)
    if answered["count"] != count or answered["scaled"][0] != values[0] * 2.0 + 1.0:
        raise BenchError(f"compute answers wrongly to {count} numbers: {json.dumps(answered)[:200]}")
    repeats = max(20, 6_000 // count)
    return median(_hot_us(lambda: client.call("compute", payload), repeats) for _ in range(rounds))
