"""The report over some million order lines, by the worker, the ORM, Polars and DuckDB: each under a server of its own,
so that each one's memory is its own."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from . import child, servers, usage
from .errors import BenchError
from .owned import Owned
from .paths import DJANGO
from .scenarios import REPORTS, Scenario
from .servers import Server
from .worker import Worker

#: The one server that it is measured under: what differs is what the views do, not who calls them.
SERVER = "gunicorn"
DATA_SECONDS = 60.0  # planned for making the lines, the first time; making them takes at most MOST_DATA_SECONDS
MOST_DATA_SECONDS = 1800.0

CASES = (
    {"region": "north", "from": "2025-03-01", "to": "2025-03-31"},
    {"region": "west", "from": "2024-02-29", "to": "2024-02-29"},
    {"region": "south", "from": "2023-12-01", "to": "2024-03-31"},
    {"from": "2025-12-30", "to": "2026-01-31"},
    {"region": "north", "from": "2030-01-01", "to": "2030-12-31"},
    {"region": "atlantis", "from": "2025-01-01", "to": "2025-01-31"},
    {"from": "2025-02-29", "to": "2025-03-31"},
    {"region": "north", "from": "2025-01-01"},
)


def environment(lines: int, shm: str | None = None) -> dict[str, str]:
    """What tells the Django project which order lines it answers about, and by which worker."""
    told = {"DEMO_REPORT_LINES": str(lines)}
    return told if shm is None else {**told, "MOLT_SHM": shm}


def make(owned: Owned, lines: int, log: Path) -> None:
    """Makes the order lines, if they are not there."""
    _report_data(owned, log, environment(lines))


def load(owned: Owned, lines: int, engine: Worker, log: Path) -> None:
    """Puts them into the worker."""
    _report_data(owned, log, environment(lines, engine.shm), "--no-database", "--load")


def _report_data(owned: Owned, log: Path, env: dict[str, str], *flags: str) -> None:
    command = [sys.executable, DJANGO / "manage.py", "report_data", *flags]
    running = child.start(owned, "manage.py report_data", command, log, env, cwd=DJANGO)
    if status := running.wait(MOST_DATA_SECONDS):
        raise BenchError(f"{running} ended with status {status}. Its last lines:\n{running.tail()}")
    owned.end(running)


def start(owned: Owned, lines: int, engine: Worker, logs: Path) -> dict[str, Server]:
    """A server for each way of answering, by the scenario's name."""
    env = environment(lines)
    log = {one.name: logs / f"{SERVER}-{one.name}.log" for one in REPORTS}
    return {one.name: servers.start(owned, SERVER, engine.shm, log[one.name], env) for one in REPORTS}


def check(running: dict[str, Server]) -> int:
    """Compares the answers of all servers on all cases; gives the number compared, or raises BenchError."""
    first, *others = (list(answers(running[one.name], one)) for one in REPORTS)
    for one, given in zip(REPORTS[1:], others, strict=True):
        for case, expected, found in zip(CASES, first, given, strict=True):
            if expected != found:
                raise BenchError(f"{one.path} and {REPORTS[0].path} answer {case} differently")
    if {status for status, _ in first} != {200, 400}:
        raise BenchError(f"{REPORTS[0].path} answers with {[status for status, _ in first]}")
    return len(CASES) * len(others)


def answers(server: Server, scenario: Scenario) -> Iterator[tuple[int, Any]]:
    """The status and the parsed answer to each case."""
    with server.client() as client:
        for case in CASES:
            response = client.get(f"{scenario.path}?{urlencode(case)}")
            yield response.status_code, response.json()


def web_process_mb(server: Server) -> float:
    """Memory of a web process, the mean of the server's: proportional set size, so that what is shared counts once."""
    found = usage.children_pss_mb(server.pid)
    return sum(found) / len(found)
