"""All peers, in the order in which they have their turns."""

import os
import shutil
import sys
import tempfile
from functools import partial
from importlib import import_module
from importlib.metadata import PackageNotFoundError
from importlib.util import find_spec
from pathlib import Path

from bench.runner import child
from bench.runner.paths import DJANGO, ROOT

from . import demo, django, golang
from .peer import ORDERS, TABLE, Missing, Peer, Side, Stage

PACKAGE = __package__
CORES = len(os.sched_getaffinity(0))


def in_view(stage: Stage, processes: int, *, module: str, server: str) -> Side:
    """A module of this folder that answers inside the view."""
    return django.serve(stage, module, django.PEER_PATH, processes, view=f"{PACKAGE}.{module}", server=server)


def pool(stage: Stage, processes: int) -> Side:
    """Two web processes, each with a pool of so many."""
    return django.serve(
        stage,
        "process_pool",
        django.PEER_PATH,
        CORES,
        view=f"{PACKAGE}.process_pool",
        env={"MOLT_BENCH_POOL": str(processes)},
    )


def dirty(stage: Stage, workers: int) -> Side:
    """As many web processes as cores, and so many dirty workers."""
    more = ["--dirty-app", f"{PACKAGE}.dirty_workers:Orders", "--dirty-workers", str(workers)]
    # gunicorn puts the dirty arbiter's socket into TMPDIR, which may be a long path.
    return django.serve(stage, "dirty_workers", django.PEER_PATH, CORES, view=f"{PACKAGE}.dirty_workers", more=more)


def dirty_version() -> str:
    """The first gunicorn with dirty workers is 25."""
    if find_spec("gunicorn.dirty") is None:
        raise Missing(f"{demo.versions('gunicorn')} has no dirty workers")
    return demo.versions("gunicorn", "msgspec")


def sidecar(stage: Stage, processes: int) -> Side:
    """One Flight service, whose threads take what the web processes send."""
    folder = stage.owned.start(
        lambda: Path(tempfile.mkdtemp(prefix="molt-bench-")), partial(shutil.rmtree, ignore_errors=True)
    )
    place = folder / "flight.sock"
    command: child.Command = [sys.executable, "-m", f"{PACKAGE}.flight_sidecar", place]
    env = {"PYTHONPATH": f"{ROOT}:{DJANGO}", "DJANGO_SETTINGS_MODULE": "demo.settings", **django.ONE_THREAD}
    running = child.start(stage.owned, "the Flight sidecar", command, stage.logs / "peer-flight.log", env, cwd=ROOT)
    child.until(place.is_socket, f"that {running} listens", 30, running)
    env = {"MOLT_BENCH_FLIGHT": f"grpc+unix://{place}"}
    side = django.serve(
        stage, "flight", django.PEER_PATH, processes, view=f"{PACKAGE}.flight_sidecar", env=env, beside=[running.pid]
    )
    side.ends += [running, folder]
    return side


def zmq_sidecars(stage: Stage, processes: int) -> Side:
    """So many Python processes behind sockets of their own, and as many web processes as cores."""
    folder = stage.owned.start(
        lambda: Path(tempfile.mkdtemp(prefix="molt-bench-")), partial(shutil.rmtree, ignore_errors=True)
    )
    env = {"PYTHONPATH": f"{ROOT}:{DJANGO}"}
    places = [folder / f"{number}.sock" for number in range(processes)]
    running = []
    for place in places:
        command: child.Command = [sys.executable, "-m", f"{PACKAGE}.zmq_sidecar", place]
        running.append(
            child.start(stage.owned, "a ZeroMQ sidecar", command, stage.logs / "peer-zmq.log", env, cwd=ROOT)
        )
    for place, one in zip(places, running, strict=True):
        child.until(place.is_socket, f"that {one} listens", 30, one)
    env = {"MOLT_BENCH_ZMQ": " ".join(f"ipc://{place}" for place in places)}
    side = django.serve(
        stage,
        "zmq",
        django.PEER_PATH,
        CORES,
        view=f"{PACKAGE}.zmq_sidecar",
        env=env,
        beside=[one.pid for one in running],
    )
    side.ends += [*running, folder]
    return side


def zmq_version() -> str:
    """pyzmq's, where it is installed."""
    return demo.versions("pyzmq", "msgspec")


def engine(name: str, module: str, package: str, how: str, server: str = "gunicorn") -> Peer:
    """A peer of the table endpoint inside the view."""

    def version() -> str:
        import_module(package)
        return demo.versions(package, server)

    begin = partial(in_view, module=module, server=server)
    return Peer(demo.named(name, server), TABLE, how, version, begin, server=server)


def flight_version() -> str:
    """pyarrow may be built without Flight."""
    import_module("pyarrow.flight")
    return demo.versions("pyarrow", "polars")


WARM = f"the tuned Python, {CORES} web processes, kept connections"
PEERS: tuple[Peer, ...] = (
    *(peer for peer in demo.PEERS if peer.group == ORDERS),
    *golang.PEERS,
    Peer("process pool", ORDERS, f"ProcessPoolExecutor kept by each web process; {WARM}", partial(demo.versions, "msgspec"),
         pool, counted="processes in each pool", counts=(1, 2)),
    Peer("gunicorn dirty workers", ORDERS, WARM, dirty_version, dirty, counted="dirty workers"),
    Peer("pyzmq sidecar", ORDERS, f"REQ and REP over Unix sockets, no broker; {WARM}", zmq_version, zmq_sidecars,
         counted="Python processes"),
    *(peer for peer in demo.PEERS if peer.group == TABLE),
    engine("numpy", "numpy_view", "numpy", "integers where they lie, words as codes"),
    engine("pandas", "pandas_view", "pandas", "words as categories, money as integers"),
    *(
        peer
        for server in django.SERVERS
        for peer in (
            engine("Polars", "polars_view", "polars", "a lazy question, one thread a process", server),
            engine("DuckDB", "duckdb_view", "duckdb", "a connection a thread, one thread each, money as integers", server),
        )
    ),
    engine("datafusion-python", "datafusion_view", "datafusion", "a context a thread, one partition, money as integers"),
    Peer("Arrow Flight sidecar", TABLE, "Polars in one Flight service over a Unix socket, kept connections", flight_version,
         sidecar),
)  # fmt: skip


def available() -> tuple[dict[Peer, str], dict[str, str]]:
    """Those that can run with their versions, and those that cannot, with the reason in one line."""
    found, missing = {}, {}
    for peer in PEERS:
        try:
            found[peer] = peer.version()
        except (Missing, ImportError, PackageNotFoundError) as reason:
            missing[f"{peer.name} ({peer.group})"] = str(reason).splitlines()[0]
    return found, missing
