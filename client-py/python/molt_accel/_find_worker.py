"""Where the `molt_worker` executable is. What was tried is listed when it is nowhere."""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

NAME = "molt_worker"
VARIABLE = "MOLT_WORKER"
"""Environment variable that names the executable and wins over every other place."""


def find_worker() -> Path:
    """The executable's path; FileNotFoundError lists the places tried."""
    tried: list[str] = []
    for origin, path in _places():
        if path is not None and path.is_file() and os.access(path, os.X_OK):
            return path
        tried.append(f"  - {origin}: {path or 'not there'}")
    places = "\n".join(tried)
    raise FileNotFoundError(
        f"{NAME} was not found. Tried:\n{places}\nhint: `make build` makes it; or set {VARIABLE} to its path"
    )


def _places() -> Iterator[tuple[str, Path | None]]:
    if named := os.environ.get(VARIABLE):
        yield VARIABLE, Path(named)
        return  # whoever sets it does not want another one
    yield "scripts of this environment", Path(sysconfig.get_path("scripts")) / NAME
    yield "beside the interpreter", Path(sys.executable).parent / NAME
    found = shutil.which(NAME)
    yield "PATH", Path(found) if found else None
    # When developing: the package lies in the repository, or in a virtual environment inside it.
    for parent in Path(__file__).resolve().parents:
        if (parent / "Cargo.toml").is_file() and (parent / "ipc-shm").is_dir():
            yield "the repository's build", parent / "target" / "release" / NAME
