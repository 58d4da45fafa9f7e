"""What the run ran on: absolute figures mean nothing without it."""

import os
import platform
from importlib.metadata import version
from pathlib import Path

import psutil

from . import k6


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("model name", "Model"):
            return value.strip()
    return platform.processor() or platform.machine()


def describe() -> dict[str, str | int | float]:
    """The `machine` of summary.json."""
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("django", "gunicorn", "granian")},
        "k6": k6.version(),
        "load_before": round(os.getloadavg()[0], 2),
    }
