"""Before anything is timed: do the endpoints give the same answers, to good requests and to bad ones?"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx

from . import data
from .errors import BenchError
from .scenarios import BASELINE, BASELINE_TABLE, OFFLOAD, OFFLOAD_TABLE, TUNED
from .servers import Server

JSON = "application/json"
ARROW = "application/vnd.apache.arrow.stream"
SIZES = (1, 20, 200, 2_000, 10_000)


@dataclass(frozen=True)
class Case:
    """One request body, in words and bytes."""

    what: str
    body: bytes


def order_cases() -> Iterator[Case]:
    """Generated requests of every size that is timed, and one for each way of being wrong."""
    for lines in SIZES:
        for seed in (data.SEED, data.SEED + 1):
            yield Case(f"{lines} lines, seed {seed}", data.orders(lines, seed))
    good = data.orders(20)
    yield Case("JSON that breaks off", good[:-2])
    yield Case("no JSON at all", b"\xff\x00order")
    yield Case("no orders", b'{"min_amount": 10, "orders": []}')
    for field, value in (
        ("qty", 0),
        ("qty", "3"),
        ("region", "atlantis"),
        ("customer", ""),
        ("price", "0.00"),
        ("price", "1000000.00"),
        ("price", "1.234"),
        ("price", "NaN"),
        ("discount", "1"),
        ("discount", "-0.1"),
    ):
        broken = json.loads(good)
        broken["orders"][7][field] = value
        yield Case(f"line 7 with {field} = {value!r}", json.dumps(broken).encode())


def table_cases() -> Iterator[Case]:
    """Generated tables, and bytes that are none."""
    for rows in (0, 1, 10_000):
        yield Case(f"{rows} rows", data.table(rows))
    yield Case("no Arrow stream", b"not a table")


def answer(client: httpx.Client, path: str, body: bytes, kind: str) -> tuple[int, Any]:
    """The status with what must be equal: the parsed answer, or where the fault lies. Wording may differ."""
    response = client.post(path, content=body, headers={"Content-Type": kind})
    if response.status_code == 200:
        return 200, response.json()
    if response.status_code != 400:
        raise BenchError(f"{path} answered {response.status_code}: {response.text[:300]}")
    told = response.json()
    return 400, (told.get("index"), told.get("field"))


def check(server: Server) -> int:
    """Compares all endpoints on all cases; gives the number of answers compared, or raises BenchError."""
    compared = 0
    with server.client() as client:
        for cases, kind, first, *others in (
            (order_cases(), JSON, BASELINE.path, OFFLOAD.path, TUNED.path),
            (table_cases(), ARROW, BASELINE_TABLE.path, OFFLOAD_TABLE.path),
        ):
            for case in cases:
                expected = answer(client, first, case.body, kind)
                for path in others:
                    given = answer(client, path, case.body, kind)
                    if given != expected:
                        raise BenchError(
                            f"{server.name}: {path} and {first} answer differently to a request with {case.what}: "
                            f"{_short(given)} and {_short(expected)}"
                        )
                    compared += 1
    return compared


def _short(told: tuple[int, Any]) -> str:
    text = f"{told[0]} {told[1]}"
    return text if len(text) < 400 else text[:400] + " ..."
