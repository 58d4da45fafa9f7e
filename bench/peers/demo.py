"""The demo's own endpoints: plain Python, tuned Python, and molt under both servers."""

from functools import partial
from importlib.metadata import version

from . import django
from .peer import ORDERS, TABLE, Peer, Side, Stage


def start(stage: Stage, processes: int, *, path: str, server=django.gunicorn) -> Side:
    """Django alone."""
    return django.serve(stage, f"demo {path}", path, processes, server=server)


def start_molt(stage: Stage, processes: int, *, path: str, server=django.gunicorn) -> Side:
    """Django with molt_worker, whose CPU time counts."""
    return django.serve(stage, f"demo {path}", path, processes, server=server, beside=[stage.engine.pid])


def versions(*names: str) -> str:
    """Name and version of each package."""
    return ", ".join(f"{name} {version(name)}" for name in names)


PLAIN, TUNED, MOLT, MOLT_GRANIAN = "plain Python", "tuned Python", "molt", "molt, granian"
gthread = f"gunicorn gthread, {django.THREADS} threads a process"

PEERS = (
    Peer(MOLT, ORDERS, f"{gthread}; molt_worker's default flags", partial(versions, "molt-accel", "gunicorn"),
         partial(start_molt, path="/offload/")),
    Peer(MOLT_GRANIAN, ORDERS, "granian WSGI; molt_worker's default flags", partial(versions, "molt-accel", "granian"),
         partial(start_molt, path="/offload/", server=django.granian)),
    Peer(PLAIN, ORDERS, f"{gthread}; json and Decimal", partial(versions, "django", "gunicorn"),
         partial(start, path="/baseline/")),
    Peer(TUNED, ORDERS, f"{gthread}; msgspec's typed decoder, money in whole cents", partial(versions, "msgspec"),
         partial(start, path="/tuned/")),
    Peer(MOLT, TABLE, f"{gthread}; SQL with a kept plan", partial(versions, "molt-accel"),
         partial(start_molt, path="/offload/table/")),
    Peer(PLAIN, TABLE, f"{gthread}; pyarrow, Decimal", partial(versions, "pyarrow"),
         partial(start, path="/baseline/table/")),
)  # fmt: skip
