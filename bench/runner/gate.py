"""The regression gate: instructions of the hot paths, against what the repository says they took.

Time on a shared machine says little; callgrind's counts are the same in every run. `molt-gate` walks a path in one thread,
callgrind counts the function in which it does so, and what differs from `bench/gate/baseline.json` is told by function.
"""

import json
import platform
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from .errors import BenchError
from .paths import BENCH, binary
from .tables import Table

BASELINE = BENCH / "gate" / "baseline.json"
PATHS = ("ring", "call", "block", "place", "read", "entry")
TIMES = 100
TOLERANCE = 0.02  # counts are exact; hash seeds and the length of names move some of them by a thousandth
COUNTED = "molt_gate::counted*"
SHOWN = 12
LONGEST_SECONDS = 300
# A line of callgrind_annotate: instructions, share, file:function, object.
LINE = re.compile(r"^\s*([\d,]+)\s+\(\s*[\d.]+%\)\s+[^:]*:(.+?)(?: \[[^\]]*\])?$")
# What the compiler adds to names, different in every build.
HASH = re.compile(r"::h[0-9a-f]{16}|\.llvm\.\d+|'2$")


@dataclass(frozen=True)
class Counted:
    """Instructions of one walk: all, and those of each function itself."""

    total: float
    functions: dict[str, float]


def toolchain() -> str:
    """What the counts depend on beside the source."""
    rustc = _run(["rustc", "--version"], "rustc").split()[1]
    libc = platform.libc_ver()
    return f"rustc {rustc}, {_run(['valgrind', '--version'], 'valgrind').strip()}, {' '.join(libc)}"


def count(path: str, *, slow: bool = False) -> Counted:
    """Walks one path under callgrind."""
    if shutil.which("valgrind") is None:
        raise BenchError("valgrind is not installed", "apt-get install valgrind")
    with tempfile.TemporaryDirectory(prefix="molt-gate-") as folder:
        out = Path(folder) / "callgrind.out"
        program = [binary("molt-gate"), path, "--times", str(TIMES), *(["--slow"] if slow else [])]
        callgrind = ["valgrind", "--tool=callgrind", f"--toggle-collect={COUNTED}", f"--callgrind-out-file={out}"]
        _run([*callgrind, *program], f"the path {path}")
        text = _run(["callgrind_annotate", "--threshold=100", "--auto=no", out], "callgrind_annotate")
    functions: dict[str, float] = {}
    for line in text.splitlines():
        if (found := LINE.match(line)) and "PROGRAM TOTALS" not in line:
            name = HASH.sub("", found[2])
            functions[name] = functions.get(name, 0) + int(found[1].replace(",", "")) / TIMES
    if not functions:
        raise BenchError(f"callgrind has counted nothing on the path {path}", f"is {COUNTED} still what counts?")
    return Counted(sum(functions.values()), functions)


def _run(command: list, what: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=LONGEST_SECONDS)
    if done.returncode:
        raise BenchError(f"{what} failed: {(done.stderr or done.stdout).strip()[-800:]}")
    return done.stdout


def save(found: dict[str, Counted]) -> None:
    """Makes these counts the baseline."""
    paths = {
        path: {"instructions": round(counted.total, 1), "functions": _rounded(counted.functions)}
        for path, counted in found.items()
    }
    BASELINE.write_text(json.dumps({"toolchain": toolchain(), "walks": TIMES, "paths": paths}, indent=1) + "\n")


def _rounded(functions: dict[str, float]) -> dict[str, float]:
    kept = sorted(functions.items(), key=lambda one: (-one[1], one[0]))
    return {name: round(count, 1) for name, count in kept if count >= 0.5}


def baseline() -> tuple[str, dict[str, Counted]]:
    """The toolchain that the baseline was counted with, and its counts."""
    saved = json.loads(BASELINE.read_text())
    return saved["toolchain"], {
        path: Counted(one["instructions"], one["functions"]) for path, one in saved["paths"].items()
    }


def worse(found: dict[str, Counted], before: dict[str, Counted]) -> list[str]:
    """The paths that take more instructions than the tolerance allows, or that the baseline does not know."""
    return [
        path
        for path, counted in found.items()
        if path not in before or counted.total > before[path].total * (1 + TOLERANCE)
    ]


def summary(found: dict[str, Counted], before: dict[str, Counted]) -> Table:
    """A row for each path."""
    rows = []
    for path, counted in found.items():
        known = before[path].total if path in before else 0.0
        change = f"{counted.total / known - 1:+.2%}" if known else "new"
        rows.append([path, f"{counted.total:,.0f}", f"{known:,.0f}", change])
    return Table("Instructions of one walk", ["path", "now", "baseline", "change"], rows, left=1)


def difference(path: str, now: Counted, before: Counted) -> Table:
    """The functions of a path whose counts have changed most."""
    names = now.functions.keys() | before.functions.keys()
    changes = {name: now.functions.get(name, 0) - before.functions.get(name, 0) for name in names}
    largest = sorted((name for name in names if abs(changes[name]) >= 1), key=lambda name: -abs(changes[name]))
    rows = [
        [name, f"{now.functions.get(name, 0):,.0f}", f"{before.functions.get(name, 0):,.0f}", f"{changes[name]:+,.0f}"]
        for name in largest[:SHOWN]
    ]
    return Table(f"{path}: by function", ["function", "now", "baseline", "change"], rows, left=1)
