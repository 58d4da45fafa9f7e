"""Echoes to call from Python, one a file: how each serves in a process of its own, and how it is called.

`python -m bench.runner.echo NAME PLACE` serves; PLACE is a socket's path.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Protocol

Ask = Callable[[bytes], bytes]
"""Sends bytes and gives what came back."""

MODULES = {"Unix socket": "unix_socket", "multiprocessing.Pipe": "pipe", "pyzmq REQ/REP": "zeromq"}


class Echo(Protocol):
    """What each module has."""

    @staticmethod
    def serve(place: Path) -> None:
        """Serves one client after the other until the process ends."""

    @staticmethod
    @contextmanager
    def connected(place: Path) -> Iterator[Ask]:
        """A client."""


def load(name: str) -> Echo:
    """The echo of that name. ImportError, where what it needs is not installed."""
    return import_module(f"{__name__}.{MODULES[name]}")
