"""The demo's settings for a load whose longest requests are explained: answers say what the worker needed, and each web process
writes the pauses of Python's collector to the file in MOLT_BENCH_PAUSES, a line each: beginning and length, seconds."""

import gc
import os
import time

from demo.settings import *  # noqa: F403
from demo.settings import MOLT

MOLT = {**MOLT, "SERVER_TIMING": True}

SHORTEST = 0.0002
_pauses = os.open(os.environ["MOLT_BENCH_PAUSES"], os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC)
_began = 0.0


def _collected(phase: str, info: dict) -> None:
    global _began
    now = time.monotonic()
    if phase == "start":
        _began = now
    elif now - _began >= SHORTEST:
        os.write(_pauses, f"{_began:.6f} {now - _began:.6f}\n".encode())


gc.callbacks.append(_collected)
