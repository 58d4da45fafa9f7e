"""S1, S4 and the curves: molt-transport-bench, the transport beside its peers in Rust, as a process of this run."""

import json
import shutil
import tempfile
from functools import partial
from pathlib import Path

from . import child
from .errors import BenchError
from .owned import Owned
from .paths import binary

SECONDS = {"": 420.0, "--quick": 75.0, "--check": 5.0}  # what it takes, for the progress line
LONGEST_SECONDS = 1800.0


def measure(owned: Owned, logs: Path, scale: str = "") -> dict:
    """Everything that the program measures. `scale`: "", "--quick" or "--check"."""
    folder = owned.start(
        lambda: Path(tempfile.mkdtemp(prefix="molt-bench-")), partial(shutil.rmtree, ignore_errors=True)
    )
    name = owned.start(lambda: folder.name, unlink)
    log, out = logs / "transport.log", folder / "report.json"
    command = [binary("molt-transport-bench"), "run", "--folder", folder, "--name", name, "--out", out]
    running = child.start(owned, "molt-transport-bench", [*command, *([scale] if scale else [])], log)
    if running.wait(LONGEST_SECONDS):
        raise BenchError(f"{running} failed. Its last lines:\n{running.tail()}")
    report = json.loads(out.read_text())
    for thing in (running, name, folder):
        owned.end(thing)
    return report


def unlink(name: str) -> None:
    """Removes what the run's servers have left in shared memory: iceoryx2 keeps a file there, and so does what is killed."""
    for path in Path("/dev/shm").glob(f"{name}-*"):
        path.unlink(missing_ok=True)
