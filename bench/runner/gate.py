"""The regression gate: instructions of the hot paths and sizes of what is installed, against what the repository says.

Time on a shared machine says little; callgrind's counts are the same in every run. `molt-gate` walks a path in one thread,
callgrind counts the function in which it does so, and what differs from `bench/gate/baseline.json` is told by function.
What is walked in a whole worker or in Python is in `gate_processes`.
"""

import json
import platform
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from . import gate_processes
from .errors import BenchError
from .paths import BENCH, binary
from .tables import Table

BASELINE = BENCH / "gate" / "baseline.json"
WALKED = ("ring", "call", "block", "place", "read", "entry")
PATHS = (*WALKED, *gate_processes.WORKER_PATHS, "import", *gate_processes.SIZES)
TIMES = 100
TOLERANCE = 0.02  # counts are exact; hash seeds and the length of names move some of them by a thousandth
COUNTS = 3
COUNTED = "molt_gate::counted*"
SHOWN = 12
LEAST_SHARE = 1e-4  # of a path's total: functions below it are not written down
LONGEST_SECONDS = 300
# A line of callgrind_annotate: instructions, share, file:function, object.
LINE = re.compile(r"^\s*([\d,]+)\s+\(\s*[\d.]+%\)\s+[^:]*:(.+?)(?: \[[^\]]*\])?$")
# What the compiler adds to names, different in every build.
HASH = re.compile(r"::h[0-9a-f]{16}|\.llvm\.\d+|'2$")


@dataclass(frozen=True)
class Counted:
    """Instructions of one walk: all, and those of each function itself. Of a size: bytes, and those of each section."""

    total: float
    functions: dict[str, float]


def toolchain() -> str:
    """What the counts depend on beside the source."""
    rustc = _run(["rustc", "--version"], "rustc").split()[1]
    libc = platform.libc_ver()
    valgrind = _run(["valgrind", "--version"], "valgrind").strip()
    imported = ", ".join(f"{name} {version(name)}" for name in ("cffi", "msgpack"))
    return f"rustc {rustc}, {valgrind}, {' '.join(libc)}, Python {platform.python_version()}, {imported}"


def count(path: str, *, slow: bool = False) -> Counted:
    """Walks one path under callgrind, or measures one size."""
    if path in gate_processes.SIZES:
        sections = gate_processes.sections(path)
        return Counted(sum(sections.values()), sections)
    if shutil.which("valgrind") is None:
        raise BenchError("valgrind is not installed", "apt-get install valgrind")
    with tempfile.TemporaryDirectory(prefix="molt-gate-") as made:
        folder = Path(made)
        if path in gate_processes.WORKER_PATHS:
            calls = gate_processes.WORKER_PATHS[path]
            few, many = (_functions(gate_processes.worker(path, more, folder)) for more in (0, calls))
            functions = _between(few, many, calls)
        elif path == "import":
            without, with_it = (_functions(gate_processes.python(code, folder)) for code in ("pass", "import molt_accel"))
            functions = _between(without, with_it, 1)
        else:
            functions = _between({}, _functions(_walk(path, slow, folder)), TIMES)
    if not functions:
        raise BenchError(f"callgrind has counted nothing on the path {path}", f"is {COUNTED} still what counts?")
    return Counted(sum(functions.values()), functions)


def _walk(path: str, slow: bool, folder: Path) -> Path:
    out = folder / "callgrind.out"
    program = [binary("molt-gate"), path, "--times", str(TIMES), *(["--slow"] if slow else [])]
    _run([*gate_processes.callgrind(out, COUNTED), *program], f"the path {path}")
    return out


def _functions(out: Path) -> dict[str, int]:
    """Instructions by function, as callgrind wrote them."""
    functions: dict[str, int] = {}
    text = _run(["callgrind_annotate", "--threshold=100", "--auto=no", out], "callgrind_annotate")
    for line in text.splitlines():
        if (found := LINE.match(line)) and "PROGRAM TOTALS" not in line:
            name = HASH.sub("", found[2])
            functions[name] = functions.get(name, 0) + int(found[1].replace(",", ""))
    return functions


def _between(before: dict[str, int], after: dict[str, int], walks: int) -> dict[str, float]:
    """What one walk took, of so many that `after` has more."""
    spent = {name: (after.get(name, 0) - before.get(name, 0)) / walks for name in before.keys() | after.keys()}
    return {name: count for name, count in spent.items() if count}


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
    least = max(0.5, sum(functions.values()) * LEAST_SHARE)
    kept = sorted(functions.items(), key=lambda one: (-one[1], one[0]))
    return {name: round(count, 1) for name, count in kept if count >= least}


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


def recounted(found: dict[str, Counted], before: dict[str, Counted], *, slow: bool = False) -> dict[str, Counted]:
    """The same, where a path through a worker that took too many is counted again, the least of `COUNTS` being right: on
    busy cores a client sleeps where else it would spin, and waking it takes instructions that are the machine's."""
    found = dict(found)
    for path in worse(found, before):
        for _ in range(COUNTS - 1 if path in gate_processes.WORKER_PATHS else 0):
            found[path] = min(found[path], count(path, slow=slow), key=lambda counted: counted.total)
            if not worse({path: found[path]}, before):
                break
    return found


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
