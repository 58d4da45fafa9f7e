"""What the gate counts in processes of its own: a worker that answers, Python that imports; and what lies on the disk.

A worker is started twice under callgrind, and one of the two answers `calls` more requests: the difference is theirs, without
the start, the loading of tables and the planning of the first request.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from .errors import BenchError
from .paths import binary

WORKER_PATHS = {"dispatch": 1_000, "sql": 100}  # and how many calls are counted: what comes now and then is spread over them
SIZES = ("worker_bytes", "client_bytes")
WARM = 20  # the plan is made, pools are filled
ROWS = 1_000
START_SECONDS = 120.0
# The way of a request on a thread of the worker: entry, answer, accounts. Its name is given to `--toggle-collect`.
DISPATCHED = "molt_worker::dispatch::Shared::run_contained*"
STATEMENT = "select region, sum(amount) as total from orders where amount > $min group by region order by region"
EXPORTS = {
    "abi_version": 1,
    "exports": [
        {"name": "totals", "kind": "sql", "sql": STATEMENT, "input": "orders", "params": {"min": "float64"}},
    ],
}


def callgrind(out: Path, counted: str | None = None) -> list[str]:
    """The command in front of a program."""
    toggled = [f"--toggle-collect={counted}"] if counted else []
    return ["valgrind", "--tool=callgrind", *toggled, f"--callgrind-out-file={out}"]


def worker(path: str, calls: int, folder: Path) -> Path:
    """A worker's life under callgrind: `WARM` requests and `calls` more. Returns what callgrind wrote."""
    import molt_accel

    name = f"{path}-{calls}"
    out, log, exports = folder / f"{name}.out", folder / f"{name}.log", folder / "exports.json"
    exports.write_text(json.dumps(EXPORTS))
    shm = f"/{folder.name}-{name}"
    flags = ["--shm", shm, "--socket", folder / f"{name}.sock", "--exports", exports, "--arena", "16MiB", "--threads", "1"]
    with log.open("w") as told:
        running = subprocess.Popen([*callgrind(out, DISPATCHED), binary("molt_worker"), *flags], stdout=told, stderr=told)
        try:
            with molt_accel.attach(shm, wait=START_SECONDS, timeout=START_SECONDS) as client:
                ask = _asker(path, client)
                for _ in range(WARM + calls):
                    ask()
            running.send_signal(signal.SIGTERM)
            ended = running.wait(START_SECONDS)
        finally:
            running.kill()
            running.wait()
    if ended or not out.exists():
        raise BenchError(f"the path {path} failed: {log.read_text()[-800:].strip()}")
    return out


def _asker(path: str, client):
    if path == "dispatch":
        return lambda: client.call("echo", bytes(64), "raw")
    import pyarrow as pa

    regions = [f"region {number % 8}" for number in range(ROWS)]
    orders = pa.table({"region": regions, "amount": [float(number) for number in range(ROWS)]})
    return lambda: client.call("totals", orders, "arrow", params={"min": 10.0}).close()


def python(code: str, folder: Path) -> Path:
    """Python that runs `code` and nothing else, under callgrind. Returns what callgrind wrote."""
    out = folder / f"{code.split()[0]}.out"
    # The same hash seeds in every run, and no look for source files beside the current folder.
    env = {"PATH": os.environ["PATH"], "PYTHONHASHSEED": "0"}
    with tempfile.TemporaryDirectory() as elsewhere:
        for wrapped in ([], callgrind(out)):  # once without, so that what is imported lies there compiled
            command = [*wrapped, sys.executable, "-c", code]
            done = subprocess.run(command, env=env, cwd=elsewhere, capture_output=True, text=True, timeout=START_SECONDS)
            if done.returncode:
                raise BenchError(f"Python under callgrind failed: {done.stderr.strip()[-800:]}")
    return out


def sections(size: str) -> dict[str, int]:
    """Bytes of what is loaded of a program, by section: symbols and what else `strip` takes away do not count."""
    if size == "worker_bytes":
        program = binary("molt_worker")
    else:
        from molt_accel import _native

        [program] = Path(_native.__file__).parent.glob("*.so")
    done = subprocess.run(["readelf", "--sections", "--wide", program], capture_output=True, text=True)
    if done.returncode:
        raise BenchError(f"readelf cannot read {program}: {done.stderr.strip()}")
    found = {}
    for line in done.stdout.splitlines():
        # [Nr] Name Type Address Offset Size ES Flags ...: A in the flags is loaded, NOBITS takes no room in the file.
        cells = line.partition("]")[2].split()
        if len(cells) >= 7 and "A" in cells[6] and cells[1] != "NOBITS":
            found[cells[0]] = int(cells[4], 16)
    return found
