"""molt: native entries called from Python through shared memory.

>>> with molt_accel.spawn() as client:  # a worker of its own; molt_accel.attach() finds the one behind /molt0
...     client.call("compute", {"values": [1, 2]})
"""

from __future__ import annotations

from .client import Client, attach
from .errors import (
    MoltBusy,
    MoltCancelled,
    MoltClosed,
    MoltError,
    MoltInternalError,
    MoltInvalidInput,
    MoltTimeout,
    MoltTooLarge,
    MoltUnavailable,
    MoltUnknownEntry,
    MoltWorkerLost,
)
from .resident import LoadProgress, TableInfo

# Importing typing takes longer than all the rest of molt_accel: what a plain call needs leaves it to type checkers,
# which take this name for true.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ._spawn import SpawnedClient, spawn
    from .table import Table

__version__ = "0.1.0"

__all__ = [
    "Client",
    "LoadProgress",
    "MoltBusy",
    "MoltCancelled",
    "MoltClosed",
    "MoltError",
    "MoltInternalError",
    "MoltInvalidInput",
    "MoltTimeout",
    "MoltTooLarge",
    "MoltUnavailable",
    "MoltUnknownEntry",
    "MoltWorkerLost",
    "SpawnedClient",
    "Table",
    "TableInfo",
    "attach",
    "spawn",
]


def __getattr__(name: str) -> Any:
    """`spawn` and `Table` bring subprocess and ctypes along: a Django process that needs neither does not load them."""
    if name in ("spawn", "SpawnedClient"):
        from . import _spawn

        value = getattr(_spawn, name)
    elif name == "Table":
        from .table import Table as value
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value
