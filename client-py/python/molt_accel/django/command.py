"""The worker's command line, as the settings describe it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import zip_longest

from .._find_worker import find_worker
from . import settings


def arena(wanted: settings.Settings) -> str | int | None:
    """The arena that the worker is told to have, by ARENA or by its own flag among WORKER_ARGS."""
    for flag, value in zip_longest(wanted.WORKER_ARGS, wanted.WORKER_ARGS[1:]):
        if flag == "--arena":
            return value
        if flag.startswith("--arena="):
            return flag.removeprefix("--arena=")
    return wanted.ARENA


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
