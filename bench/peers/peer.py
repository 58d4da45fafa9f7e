"""What every peer says about itself, and what it is given to start."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from bench.runner.child import Child
from bench.runner.owned import Owned
from bench.runner.servers import authorization
from bench.runner.worker import Worker

ORDERS, TABLE = "orders", "table"
"""The two workloads: 2,000 order lines as JSON, 10,000 rows as Arrow."""


class Missing(Exception):
    """The peer cannot run here: one line that says why."""


@dataclass(frozen=True)
class Stage:
    """Where a peer is started."""

    owned: Owned
    logs: Path
    engine: Worker


@dataclass
class Side:
    """A peer that runs: where it answers, and the processes whose CPU time serving costs, with their descendants."""

    url: str
    path: str
    child: Child
    command: str
    beside: list[int] = field(default_factory=list)
    """Further processes that serve: molt_worker, a sidecar."""
    ends: list[object] = field(default_factory=list)
    """What else ends with this side."""
    web: int = 1
    """Processes that take requests."""

    @property
    def pids(self) -> list[int]:
        return [self.child.pid, *self.beside]

    def client(self) -> httpx.Client:
        """An HTTP client with the token that every side wants."""
        return httpx.Client(base_url=self.url, headers=authorization(), timeout=30, trust_env=False)


@dataclass(frozen=True)
class Peer:
    """One way to answer one of the workloads."""

    name: str
    group: str
    how: str
    """How it is tuned."""
    version: Callable[[], str]
    """Raises Missing (or ImportError) where it cannot run."""
    start: Callable[[Stage, int], Side]
    """Starts it with so many of `counted`."""
    counted: str = "web processes"
    server: str = "gunicorn"
    """What takes the requests; none: the peer itself."""
    counts: tuple[int, ...] = (1, 2, 4)
    """The numbers that are tried; the best one is taken."""
    threads: tuple[int, ...] = ()
    """Numbers of the worker's threads that are tried after that, for those that use molt_worker."""
