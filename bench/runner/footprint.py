"""S13: what the client library costs a Django process: the time of its import, and the memory of importing, attaching and
one call: all that is not shared memory, the library's own pages too, though several processes share those.

`python -m bench.runner.footprint SHM` is such a process, without the library until Django has answered; prints MB.
"""

import subprocess
import sys
import time
from pathlib import Path
from statistics import median

from . import child, turns, usage
from .errors import BenchError
from .owned import Owned
from .paths import ROOT
from .worker import Worker

IMPORTS = 15
PROCESSES = 5
PATIENCE = 60.0
NOTHING, IMPORT = "pass", "import molt_accel"


def import_ms(rounds: int = IMPORTS) -> float:
    """What the import adds to a Python process, milliseconds: the difference of the medians, in turn."""
    took: dict[str, list[float]] = {NOTHING: [], IMPORT: []}
    for number in range(rounds):
        for code in turns.order(took, number):
            began = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
            took[code].append((time.perf_counter() - began) * 1000)
    return median(took[IMPORT]) - median(took[NOTHING])


def client_mb(owned: Owned, engine: Worker, logs: Path, processes: int = PROCESSES) -> float:
    """The memory that a Django process gains, MB: the median of several."""
    command: child.Command = [sys.executable, "-m", "bench.runner.footprint", engine.shm]
    gained = []
    for _ in range(processes):
        running = child.start(owned, "a Django process", command, logs / "footprint.log", cwd=ROOT)
        status = running.wait(PATIENCE)
        owned.end(running)
        if status:
            raise BenchError(f"{running} failed. Its last lines:\n{running.tail()}")
        gained.append(float(running.tail(1)))
    return median(gained)


def look(shm: str) -> float:
    """What this process gains."""
    import os

    import django
    from django.conf import settings
    from django.http import HttpRequest, JsonResponse
    from django.test import Client
    from django.urls import path

    def hello(request: HttpRequest) -> JsonResponse:
        return JsonResponse({"hello": "world"})

    settings.configure(ROOT_URLCONF=(path("", hello),), ALLOWED_HOSTS=["*"])
    django.setup()
    web = Client()
    for _ in range(3):
        if web.get("/").status_code != 200:
            raise BenchError("Django does not answer")
    before = usage.private_mb(os.getpid())
    import molt_accel

    client = molt_accel.attach(shm=shm)
    if client.call("echo", {"n": 1}) != {"n": 1}:
        raise BenchError("echo answers something else")
    gained = usage.private_mb(os.getpid()) - before
    client.close()
    return gained


if __name__ == "__main__":
    print(look(sys.argv[1]))
