"""What is done with every side of a comparison: it is started, compared with plain Python, warmed up and loaded."""

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import psutil

from . import data, equal, k6, servers, usage
from .errors import BenchError
from .k6 import Generated
from .scenarios import BASELINE, BASELINE_TABLE

FIRST_REQUESTS = 6
"""On each connection of a round of warming up."""
CONNECTIONS = 2
"""For each web process."""
WARM_SECONDS = 60.0


def order_cases() -> Iterator[equal.Case]:
    """Those of every run, and generated bodies of which more than half break a rule."""
    yield from equal.order_cases()
    data.app()
    from orders.tests.requests import generated_requests

    for number, body in enumerate(generated_requests(300, seed=5)):
        yield equal.Case(f"generated body {number}", body)


def table_cases() -> Iterator[equal.Case]:
    """Those of every run, and tables that are valid and unusual: nulls, strange regions, batches, wider decimals."""
    yield from equal.table_cases()
    data.app()
    import pyarrow as pa
    import pyarrow.compute as pc
    from orders import table_data

    plain = table_data.table(2_000, seed=9)

    def without(name: str) -> pa.Table:
        """Every seventh value of a column is missing."""
        kept = pa.array([number % 7 != 0 for number in range(plain.num_rows)])
        column = pc.if_else(kept, plain[name].combine_chunks(), pa.scalar(None, plain[name].type))
        return plain.set_column(plain.column_names.index(name), name, column)

    for name in plain.column_names:
        yield equal.Case(f"nulls in {name}", table_data.stream(without(name)))
    strange = pa.array(["atlantis" if number % 5 == 0 else "north" for number in range(plain.num_rows)])
    yield equal.Case("a region that nobody knows", table_data.stream(plain.set_column(0, "region", strange)))
    pieces = pa.concat_tables([plain.slice(0, 3), plain.slice(3, 0), plain.slice(3, 900), plain.slice(903)])
    yield equal.Case("several batches", table_data.stream(pieces))
    yield equal.Case("a slice", table_data.stream(plain.slice(11, 700)))
    wide = plain.schema.set(3, pa.field("price", pa.decimal128(12, 2))).set(
        4, pa.field("discount", pa.decimal128(6, 4))
    )
    yield equal.Case("wider decimals", table_data.stream(plain.cast(wide)))
    yield equal.Case("a column more", table_data.stream(plain.append_column("note", strange)))
    yield equal.Case("a stream that breaks off", table_data.stream(plain)[:2_000])


@dataclass(frozen=True)
class Workload:
    """What all peers of one group are sent."""

    group: str
    title: str
    path: str
    """The plain Python endpoint, whose answers are right."""
    kind: str
    body: Path

    def cases(self) -> Iterator[equal.Case]:
        """What answers are compared on."""
        return order_cases() if self.kind == equal.JSON else table_cases()


def workloads() -> tuple[Workload, ...]:
    """Both."""
    return (
        Workload("orders", "2,000 order lines as JSON", BASELINE.path, equal.JSON, data.body(BASELINE)),
        Workload("table", "10,000 rows as Arrow", BASELINE_TABLE.path, equal.ARROW, data.body(BASELINE_TABLE)),
    )


def start(stage: Any, peer: Any, count: int) -> Any:
    """Starts a peer. Where it does not come up: Missing with the reason, and nothing of it left running."""
    from bench.peers.peer import Missing

    mark = stage.owned.mark()
    try:
        return peer.start(stage, count)
    except BenchError as reason:
        stage.owned.end_since(mark)
        raise Missing(f"does not start: {str(reason).splitlines()[0]}") from reason


def survives(stage: Any, side: Any, work: Callable[[], object]) -> str | None:
    """Does what loads a side. Where the side has died of it: why; then nothing of it is left running."""
    try:
        work()
    except BenchError as reason:
        if not side.child.ended():
            raise
        end(stage, side)
        return f"died under load: {str(reason).splitlines()[0]}"
    return None


def end(stage: Any, side: Any) -> None:
    """Ends a side with all that it started."""
    for thing in (side.child, *side.ends):
        stage.owned.end(thing)


def answering(side: Any) -> set[int]:
    """The processes of a side that hold a connection of a client now."""
    found = set()
    with suppress(psutil.NoSuchProcess):
        root = psutil.Process(side.child.pid)
        for process in (root, *root.children(recursive=True)):
            with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
                if any(
                    one.status == psutil.CONN_ESTABLISHED and one.laddr.port == urlsplit(side.url).port
                    for one in process.net_connections("tcp")
                ):
                    found.add(process.pid)
    return found


def warm(side: Any, workload: Workload) -> set[int]:
    """Sends requests on several connections at once until every web process of the side has answered some, each has its
    connections, pools and plans to make; gives those processes."""
    body, until = workload.body.read_bytes(), time.monotonic() + WARM_SECONDS
    warmed: set[int] = set()

    def ask(client: httpx.Client) -> None:
        for _ in range(FIRST_REQUESTS):
            equal.answer(client, side.path, body, workload.kind)

    while len(warmed) < side.web:
        if time.monotonic() > until:
            raise BenchError(
                f"{len(warmed)} of {side.web} web processes of {side.child} have answered in {WARM_SECONDS:.0f} s"
            )
        # Fresh connections each time: the kernel deals them out anew.
        with ExitStack() as opened, ThreadPoolExecutor(CONNECTIONS * side.web) as threads:
            clients = [opened.enter_context(side.client()) for _ in range(CONNECTIONS * side.web)]
            list(threads.map(ask, clients))
            warmed |= answering(side)
    return warmed


def load(
    stage: Any, side: Any, workload: Workload, seconds: float, users: int, rate: float | None = None
) -> tuple[Generated, float]:
    """One load, and the CPU seconds that serving it took."""
    more = {"MOLT_PATH": side.path, "MOLT_TYPE": workload.kind}
    told = k6.Load("peers/post", side.url, workload.body, servers.TOKEN, seconds, users, rate, more)
    before = cpu(side)
    generated = k6.run(stage.owned, told, stage.logs / "k6-peers.log", stage.logs / "k6-peers.json")
    side.child.fail_if_ended()
    stage.engine.child.fail_if_ended()
    return generated, cpu(side) - before


def cpu(side: Any) -> float:
    """CPU seconds of all that serves, so far."""
    return sum(usage.of(pid).cpu_s for pid in side.pids)


def right_answers(stage: Any, workload: Workload) -> list[tuple[equal.Case, tuple[int, Any]]]:
    """What plain Python answers to every case."""
    server = servers.start(stage.owned, "gunicorn", stage.engine.shm, stage.logs / "peers-right.log")
    with server.client() as client:
        found = [(case, answer(client, workload.path, case.body, workload.kind)) for case in workload.cases()]
    stage.owned.end(server.child)
    return found


def answer(client: httpx.Client, path: str, body: bytes, kind: str) -> tuple[int, Any]:
    """Status and parsed answer. A table's fault is told in each library's own words: there only its place counts."""
    if kind != equal.JSON:
        return equal.answer(client, path, body, kind)
    response = client.post(path, content=body, headers={"Content-Type": kind})
    if response.status_code not in (200, 400):
        raise BenchError(f"{path} answered {response.status_code}: {response.text[:300]}")
    return response.status_code, response.json()


def check(name: str, side: Any, workload: Workload, expected: list[tuple[equal.Case, tuple[int, Any]]]) -> int:
    """Compares all answers with those of plain Python; gives their number, or raises BenchError."""
    with side.client() as client:
        for case, right in expected:
            given = answer(client, side.path, case.body, workload.kind)
            if given != right:
                raise BenchError(
                    f"{name} ({workload.group}) and plain Python answer differently to a request with {case.what}: "
                    f"{json.dumps(given)[:300]} and {json.dumps(right)[:300]}"
                )
    return len(expected)
