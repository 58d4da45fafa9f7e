"""What the run ran on and what it ran: absolute figures mean nothing without it. Looked at before anything is measured."""

import os
import platform
import shlex
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

from . import k6
from .paths import ROOT

PACKAGES = (
    "django", "gunicorn", "granian", "msgspec", "numpy", "pandas", "polars", "duckdb", "datafusion", "pyarrow", "pyzmq", "plotly",
)  # fmt: skip


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("model name", "Model"):
            return value.strip()
    return platform.processor() or platform.machine()


def _says(*command: str) -> str:
    """What a program prints, or why it cannot."""
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    except OSError as reason:
        return f"not known: {reason.strerror}"
    if done.returncode:
        return f"not known: {command[0]} ended with status {done.returncode}"
    return done.stdout.strip()


def commit() -> str:
    """The commit that is checked out, and whether the files are no longer its own."""
    found = _says("git", "rev-parse", "--short=12", "HEAD")
    changed = not found.startswith("not known") and _says("git", "status", "--porcelain", "--untracked-files=no")
    return f"{found}, with changes" if changed else found


def _package(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _go() -> str:
    """As the Go peer finds it."""
    from bench.peers import golang
    from bench.peers.peer import Missing

    try:
        return golang.version()
    except Missing as reason:
        return f"not known: {reason}"


def describe() -> dict[str, str | int | float]:
    """The `machine` of summary.json."""
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "kernel": platform.release(),
        "command": shlex.join(["python", "-m", "bench", *sys.argv[1:]]),
        "commit": commit(),
        "rustc": _says("rustc", "--version"),
        "python": platform.python_version(),
        "go": _go(),
        "k6": k6.version(),
        **{name: _package(name) for name in PACKAGES},
        "load_before": round(os.getloadavg()[0], 2),
    }
