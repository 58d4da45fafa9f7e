"""Request bodies as files: generated from a seed by the Django app's own generators, the same bytes every time."""

import sys
from functools import cache
from pathlib import Path
from random import Random

from .paths import DATA, DJANGO
from .scenarios import LINES, TABLE_ROWS, Scenario

SEED = 1


def app() -> None:
    """Makes the Django app's modules importable."""
    if str(DJANGO) not in sys.path:
        sys.path.insert(0, str(DJANGO))


def orders(lines: int = LINES, seed: int = SEED) -> bytes:
    """A JSON body of the order endpoints."""
    app()
    from orders import generate

    return generate.body(lines, seed)


def table(rows: int = TABLE_ROWS, seed: int = SEED) -> bytes:
    """An Arrow IPC stream for the table endpoints."""
    app()
    from orders import table_data

    return table_data.body(rows, seed)


@cache
def body(scenario: Scenario) -> Path:
    """The file with a scenario's request body, written anew once in every run: a generator may have changed."""
    name = f"table-{scenario.lines}.arrow" if scenario.table else f"orders-{scenario.lines}.json"
    path = DATA / name
    DATA.mkdir(exist_ok=True)
    half = path.with_suffix(".part")
    half.write_bytes(table(scenario.lines) if scenario.table else orders(scenario.lines))
    half.replace(path)
    return path


def bytes_of(size: int) -> bytes:
    """So many bytes that do not repeat."""
    return Random(SEED).randbytes(size)
