"""Single calls from Python, and the worker by itself: S2 (echo), S12 (start, memory, size) and S14 (compute)."""

import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from random import Random
from statistics import median
from typing import Any

from . import child, usage, worker
from .child import until
from .errors import BenchError
from .owned import Owned
from .paths import EXPORTS, ROOT, binary
from .worker import Worker

SECONDS = 15.0  # what all of this takes, for the progress line
ROUNDS = 7
HOT_CALLS = 3_000
SLEEPY_CALLS = 60
PAUSE_SECONDS = (
    0.003  # long enough that both sides have gone to sleep: this is what is measured, not a wait for something
)
STARTS = 5
MB = 1e6


def measure(owned: Owned, logs: Path) -> dict:
    """All figures, in microseconds per call, milliseconds and MB (10^6 bytes); medians of alternating rounds."""
    started = [first_answer_ms(owned, logs) for _ in range(STARTS)]
    engine = worker.start(owned, logs / "worker-micro.log")
    try:
        idle_mb = usage.private_mb(engine.pid)
        calls = _calls(owned, engine, logs)
    finally:
        worker.stop(owned, engine)
    return {
        "echo_64_bytes": calls["echo"],
        "compute_us": calls["compute"],
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


def _calls(owned: Owned, engine: Worker, logs: Path) -> dict:
    import molt_accel

    path = engine.folder / "echo.sock"
    command: child.Command = [sys.executable, "-m", "bench.runner.socket_echo", path]
    peer = child.start(owned, "the Unix-socket echo", command, logs / "socket-echo.log", cwd=ROOT)
    until(path.is_socket, f"that {peer} listens", 10, peer)
    with closing(socket.socket(socket.AF_UNIX)) as connection, molt_accel.attach(shm=engine.shm) as client:
        connection.connect(str(path))
        payload = bytes(range(64))

        def by_socket() -> bytes:
            connection.sendall(payload)
            return connection.recv(65536)

        def by_molt() -> bytes:
            return client.call("echo", payload, "raw")

        for ask in (by_socket, by_molt):
            if ask() != payload:
                raise BenchError(f"{ask.__name__} does not echo")
        rounds: dict[str, list[float]] = {"socket_hot": [], "molt_hot": [], "socket_asleep": [], "molt_asleep": []}
        for _ in range(ROUNDS):
            rounds["socket_hot"].append(_hot_us(by_socket, HOT_CALLS))
            rounds["molt_hot"].append(_hot_us(by_molt, HOT_CALLS))
            rounds["socket_asleep"].append(_asleep_us(by_socket))
            rounds["molt_asleep"].append(_asleep_us(by_molt))
        compute = {str(count): _compute_us(client, count) for count in (3, 10_000)}
    owned.end(peer)
    return {"echo": {f"{name}_us": median(times) for name, times in rounds.items()}, "compute": compute}


def _hot_us(ask: Callable[[], object], calls: int) -> float:
    """Microseconds per call, one right after the other."""
    began = time.perf_counter()
    for _ in range(calls):
        ask()
    return (time.perf_counter() - began) / calls * 1e6


def _asleep_us(ask: Callable[[], object]) -> float:
    """The median call of a caller that comes seldom."""
    took = []
    for _ in range(SLEEPY_CALLS):
        time.sleep(PAUSE_SECONDS)
        began = time.perf_counter()
        ask()
        took.append(time.perf_counter() - began)
    return median(took) * 1e6


def _compute_us(client: Any, count: int) -> float:
    """Microseconds per call of `compute` with so many numbers, encoding and decoding included."""
    random = Random(1)
    values = [random.uniform(-1e6, 1e6) for _ in range(count)]
    payload = {"values": values, "scale": 2.0, "offset": 1.0}
    answered = client.call("compute", payload)
    if answered["count"] != count or answered["scaled"][0] != values[0] * 2.0 + 1.0:
        raise BenchError(f"compute answers wrongly to {count} numbers: {json.dumps(answered)[:200]}")
    calls = max(20, 6_000 // count)
    return median(_hot_us(lambda: client.call("compute", payload), calls) for _ in range(ROUNDS))
