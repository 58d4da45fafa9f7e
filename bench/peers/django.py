"""A peer inside Django, or behind it: the demo's project under gunicorn (or granian), with one further view at /peer/."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from bench.runner import child, servers
from bench.runner.paths import DJANGO, PROGRAMS, ROOT

from .peer import Side, Stage

THREADS = servers.THREADS
PEER_PATH = "/peer/"
ONE_THREAD = {"POLARS_MAX_THREADS": "1", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
"""Several web processes share the cores: a pool of threads in each only makes them wait for each other."""


def gunicorn(port: int, processes: int, application: str, more: Sequence[str] = ()) -> list[str | Path]:
    """gunicorn with its threaded worker."""
    return [
        PROGRAMS / "gunicorn", "--bind", f"{servers.HOST}:{port}", "--workers", str(processes), "--worker-class", "gthread",
        "--threads", str(THREADS), "--log-level", "warning", *more, application,
    ]  # fmt: skip


def granian(port: int, processes: int, application: str, more: Sequence[str] = ()) -> list[str | Path]:
    """granian's WSGI interface."""
    return [
        PROGRAMS / "granian", "--interface", "wsgi", "--host", servers.HOST, "--port", str(port), "--workers", str(processes),
        "--blocking-threads", str(THREADS), "--http", "1", "--no-ws", "--log-level", "warning", *more, application,
    ]  # fmt: skip


SERVERS = {"gunicorn": gunicorn, "granian": granian}


def serve(
    stage: Stage,
    name: str,
    path: str,
    processes: int,
    *,
    view: str | None = None,
    server: str = "gunicorn",
    more: Sequence[str] = (),
    env: dict[str, str] | None = None,
    beside: Sequence[int] = (),
) -> Side:
    """Starts the demo; with `view`, a module whose `answer(body)` answers at /peer/, the project of site/ around it."""
    port = servers.free_port()
    project = {} if view is None else {"DJANGO_SETTINGS_MODULE": "bench.peers.site.settings", "MOLT_BENCH_VIEW": view}
    environment = {
        "MOLT_SHM": stage.engine.shm, "DEMO_API_TOKEN": servers.TOKEN, "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": f"{ROOT}:{DJANGO}", **ONE_THREAD, **project, **(env or {}),
    }  # fmt: skip
    command = SERVERS[server](port, processes, "demo.wsgi:application", more)
    label = "".join(letter if letter.isalnum() else "-" for letter in f"{name} {server}")
    running = child.start(stage.owned, name, command, stage.logs / f"peer-{label}.log", environment, cwd=DJANGO)
    shown = shlex.join([Path(command[0]).name, *map(str, command[1:])])
    side = Side(f"http://{servers.HOST}:{port}", path, running, shown, list(beside), web=processes)
    wait(side)
    return side


def wait(side: Side) -> None:
    """Until it answers."""
    with side.client() as client:
        child.until(
            lambda: servers.answers(client),
            f"that {side.child} answers at {side.url}",
            servers.START_SECONDS,
            side.child,
        )
