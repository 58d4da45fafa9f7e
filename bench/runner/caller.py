"""One process that calls `echo` for a while: `python -m bench.runner.caller SHM SECONDS [WORD]`; prints JSON: calls, CPU
seconds, microseconds of one call in twenty, and when it was done (CLOCK_MONOTONIC). With WORD it attaches and begins when
that file is there."""

import json
import sys
import time
from pathlib import Path

import molt_accel

BATCH = 20
WARM_CALLS = 100
LOOK_SECONDS = 0.01


def main(shm: str, seconds: float, word: Path | None) -> None:
    """Calls until the time is over."""
    payload, clock = bytes(64), time.perf_counter_ns
    with molt_accel.attach(shm=shm) as client:
        for _ in range(WARM_CALLS):
            client.call("echo", payload, "raw")
        while word is not None and not word.exists():
            time.sleep(LOOK_SECONDS)
        took = []
        calls, used, end = 0, time.process_time(), time.monotonic() + seconds
        while time.monotonic() < end:
            began = clock()
            client.call("echo", payload, "raw")
            took.append((clock() - began) / 1e3)
            for _ in range(BATCH - 1):
                client.call("echo", payload, "raw")
            calls += BATCH
        used = time.process_time() - used
        print(json.dumps({"calls": calls, "cpu_s": used, "us": took, "until": time.monotonic()}))


main(sys.argv[1], float(sys.argv[2]), Path(sys.argv[3]) if len(sys.argv) > 3 else None)
