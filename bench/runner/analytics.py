"""S5, S6 and S7: questions over tables beside DuckDB, Polars, pandas and datafusion-python. `queries/` does it."""

import json
import sys
from pathlib import Path

from . import child
from .errors import BenchError
from .owned import Owned
from .paths import ROOT
from .queries import ENVIRONMENT, SCALES

MOST_SECONDS = 3600.0
GRACE = 90.0  # a question that is being asked is answered first; then the worker is ended


def measure(owned: Owned, logs: Path, scale: str) -> dict:
    """What `python -m bench.runner.queries SCALE` finds, in a process of its own: it wants its own threads."""
    out = logs / "queries.json"
    out.unlink(missing_ok=True)
    command: child.Command = [sys.executable, "-m", "bench.runner.queries", scale, out]
    running = child.start(owned, "the questions", command, logs / "queries.log", ENVIRONMENT, cwd=ROOT, grace=GRACE)
    status = running.wait(MOST_SECONDS)
    if status:
        raise BenchError(f"{running} ended with status {status}. Its last lines:\n{running.tail()}")
    owned.end(running)
    return json.loads(out.read_text())


def seconds(scale: str) -> float:
    """How long it takes, for the progress line."""
    return SCALES[scale].seconds
