"""The demo's own endpoints: plain Python, tuned Python, and molt under both servers."""

from functools import partial
from importlib.metadata import version

from . import django
from .peer import ORDERS, TABLE, Peer, Side, Stage


def start(stage: Stage, processes: int, *, path: str, server: str) -> Side:
    """Django alone."""
    return django.serve(stage, f"demo {path}", path, processes, server=server)


def start_molt(stage: Stage, processes: int, *, path: str, server: str) -> Side:
    """Django with molt_worker, whose CPU time counts."""
    return django.serve(stage, f"demo {path}", path, processes, server=server, beside=[stage.engine.pid])


def versions(*names: str) -> str:
    """Name and version of each package."""
    return ", ".join(f"{name} {version(name)}" for name in names)


PLAIN, TUNED, MOLT = "plain Python", "tuned Python", "molt"
WORKER_THREADS = (1, 2, 4)
"""By default the worker has as many as there are cores."""
SERVED = {"gunicorn": f"gunicorn gthread, {django.THREADS} threads a process", "granian": "granian WSGI"}


def named(name: str, server: str) -> str:
    """A peer under gunicorn goes by its name alone."""
    return name if server == "gunicorn" else f"{name}, {server}"


def under(server: str) -> tuple[Peer, ...]:
    """The demo's endpoints under one server."""

    def peer(name: str, group: str, how: str, packages: tuple[str, ...], begin, path: str) -> Peer:
        return Peer(
            named(name, server), group, f"{SERVED[server]}; {how}", partial(versions, *packages, server),
            partial(begin, path=path, server=server), server=server, threads=WORKER_THREADS if begin is start_molt else (),
        )  # fmt: skip

    return (
        peer(MOLT, ORDERS, "molt_worker", ("molt-accel",), start_molt, "/offload/"),
        peer(PLAIN, ORDERS, "json and Decimal", ("django",), start, "/baseline/"),
        peer(TUNED, ORDERS, "msgspec's typed decoder, money in whole cents", ("msgspec",), start, "/tuned/"),
        peer(MOLT, TABLE, "SQL with a kept plan", ("molt-accel",), start_molt, "/offload/table/"),
        peer(PLAIN, TABLE, "pyarrow, Decimal", ("pyarrow",), start, "/baseline/table/"),
    )


PEERS = tuple(peer for server in SERVED for peer in under(server))
