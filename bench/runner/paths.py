"""Where things lie in the repository."""

import sys
from pathlib import Path

from .errors import BenchError

ROOT = Path(__file__).resolve().parents[2]
BENCH = ROOT / "bench"
DATA = BENCH / "data"
RESULTS = BENCH / "results"
SCRIPTS = BENCH / "k6"
DJANGO = ROOT / "django_app"
EXPORTS = ROOT / "molt_exports.json"
BINARIES = ROOT / "target" / "release"


def binary(name: str) -> Path:
    """A program of this repository. Raises BenchError when it has not been built."""
    program = BINARIES / name
    if not program.exists():
        raise BenchError(f"{program} is not built", "`make build` builds it")
    return program


# The environment's own programs, also where it is not activated.
PROGRAMS = Path(sys.prefix) / "bin"
