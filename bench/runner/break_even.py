"""S10: the smallest Python work of a request for which offloading it already pays.

The demo's plain view and its offloaded view are called in one process with the same requests, from one order line upwards;
what the server around them does is the same for both and left out. `python -m bench.runner.break_even SHM` prints JSON.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from . import child, data, servers, turns, usage
from .errors import BenchError
from .owned import Owned
from .paths import DJANGO, ROOT
from .worker import Worker

LINES = (1, 2, 3, 5, 8, 12, 20, 30, 50, 100, 200)
ROUNDS = 7
CALLS = 60
MOST_SECONDS = 120.0


def measure(owned: Owned, engine: Worker, logs: Path, rounds: int = ROUNDS) -> dict:
    """`points`: for each number of lines microseconds and CPU microseconds of both views; `us`, `cpu_us`: the break-even."""
    out = logs / "break-even.log"
    command: child.Command = [sys.executable, "-m", "bench.runner.break_even", str(engine.pid), str(rounds)]
    env = {"MOLT_SHM": engine.shm, "DEMO_API_TOKEN": servers.TOKEN, "DJANGO_SETTINGS_MODULE": "demo.settings"}
    running = child.start(owned, "the views", command, out, {**env, "PYTHONPATH": str(DJANGO)}, cwd=ROOT)
    if running.wait(MOST_SECONDS):
        raise BenchError(f"{running} failed. Its last lines:\n{running.tail()}")
    points = json.loads(running.tail(1))
    owned.end(running)
    return {
        "points": points,
        "us": crossing(points, "plain_us", "offloaded_us"),
        "cpu_us": crossing(points, "plain_cpu_us", "offloaded_cpu_us"),
    }


def crossing(points: list[dict], plain: str, offloaded: str) -> float | None:
    """The plain view's time where the offloaded one becomes the faster, between two points in a straight line; None where it
    never does. Where it is so from the first point on, that point's."""
    before = None
    for point in points:
        gain = point[plain] - point[offloaded]
        if gain >= 0:
            if before is None:
                return point[plain]
            lost = before[offloaded] - before[plain]
            share = lost / (lost + gain) if lost + gain else 0.0
            return before[plain] + share * (point[plain] - before[plain])
        before = point
    return None


def look(pid: int, rounds: int) -> list[dict]:
    """Measures both views here; the worker's CPU counts as well."""
    import django
    from django.test import RequestFactory

    django.setup()
    from orders import views

    factory = RequestFactory()
    points = []
    for lines in LINES:
        body = data.orders(lines)
        took: dict[str, list[tuple[float, float]]] = {"plain": [], "offloaded": []}
        answers = set()
        for number in range(rounds + 1):  # the first warms both sides up and does not count
            for name, view in turns.order((("plain", views.baseline), ("offloaded", views.offloaded)), number):
                made = [factory.post("/", data=body, content_type="application/json") for _ in range(CALLS)]
                told, wall, spent = turn(view, made, pid)
                answers.add(json.dumps(json.loads(told), sort_keys=True))
                if number:
                    took[name].append((wall, spent))
        if len(answers) != 1:
            raise BenchError(f"the views answer differently to {lines} lines")
        point: dict[str, Any] = {"lines": lines}
        for name, found in took.items():
            point[f"{name}_us"] = median(wall for wall, _ in found)
            point[f"{name}_cpu_us"] = median(spent for _, spent in found)
        points.append(point)
    return points


def turn(view: Callable, requests: list, pid: int) -> tuple[bytes, float, float]:
    """An answer, the median call, and the CPU of a call in both processes, microseconds."""
    clock, took = time.perf_counter_ns, []
    spent = usage.cpu_seconds(pid) + time.process_time()
    for request in requests:
        began = clock()
        response = view(request)
        took.append(clock() - began)
    spent = usage.cpu_seconds(pid) + time.process_time() - spent
    if response.status_code != 200:
        raise BenchError(f"a view answered {response.status_code}: {response.content[:200]!r}")
    return response.content, median(took) / 1e3, spent / len(requests) * 1e6


def row(found: dict) -> list[str]:
    """For the table of single calls."""
    spent = "never" if found["cpu_us"] is None else f"{found['cpu_us']:.0f} us"
    said = "never" if found["us"] is None else f"{found['us']:.0f} us"
    return ["break-even: Python work of a request", said, f"by CPU of both processes: {spent}"]


if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "demo.settings")
    print(json.dumps(look(int(sys.argv[1]), int(sys.argv[2]))))
