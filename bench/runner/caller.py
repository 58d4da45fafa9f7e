"""One process that calls `echo` for a while: `python -m bench.runner.caller SHM SECONDS`; prints calls and CPU seconds."""

import json
import sys
import time

import molt_accel


def main(shm: str, seconds: float) -> None:
    """Calls until the time is over."""
    payload = bytes(64)
    with molt_accel.attach(shm=shm) as client:
        for _ in range(100):
            client.call("echo", payload, "raw")
        calls, used, end = 0, time.process_time(), time.monotonic() + seconds
        while time.monotonic() < end:
            for _ in range(100):
                client.call("echo", payload, "raw")
            calls += 100
        used = time.process_time() - used
    print(json.dumps({"calls": calls, "cpu_s": used}))


main(sys.argv[1], float(sys.argv[2]))
