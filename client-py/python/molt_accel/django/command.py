"""The worker's command line, as the settings describe it."""

from __future__ import annotations

import os
from collections.abc import Sequence

from .._find_worker import find_worker
from . import settings


def command(extra: Sequence[str] = ()) -> list[str]:
    """The executable and its flags. FileNotFoundError: there is no executable."""
    wanted = settings.read()
    line = [str(find_worker())]
    if wanted.SHM is not None:
        line += ["--shm", wanted.SHM]
    else:
        line += ["--memfd"]
    for flag, value in (("--socket", wanted.SOCKET), ("--exports", wanted.EXPORTS), ("--arena", wanted.ARENA)):
        if value is not None:
            line += [flag, os.fspath(value) if isinstance(value, os.PathLike) else str(value)]
    return [*line, *wanted.WORKER_ARGS, *extra]
