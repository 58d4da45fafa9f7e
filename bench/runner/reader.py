"""A Django process that reads a table, or makes it.

`python -m bench.runner.reader read PATH|copy PATH|put BYTES|write BYTES FILE`: `read` has the table from the worker's arena,
`copy` loads it into memory of its own from `table.arrow` beside PATH.
"""

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import django
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from molt_accel.django import client

NAME = "big"
ROWS = 1 << 20  # of a batch


def batches(size: int) -> Iterator[pa.RecordBatch]:
    """A table of so many bytes: one column of 64-bit numbers."""
    for start in range(0, size // 8, ROWS):
        yield pa.record_batch([np.arange(start, start + ROWS, dtype=np.int64)], names=["n"])


def put(size: int) -> None:
    """Publishes the table."""
    client().put(NAME, pa.Table.from_batches(list(batches(size))))


def write(size: int, place: str) -> None:
    """Makes a file of it."""
    with pa.ipc.new_file(place, pa.schema([("n", pa.int64())])) as out:
        for batch in batches(size):
            out.write_batch(batch)


def read(place: str) -> None:
    """Reads the resident table."""
    client().ping()
    pc.sum(pa.array([1, 2, 3]))  # whatever a first sum makes, it makes before memory is looked at

    def table_and_sum() -> tuple[object, int]:
        table = client().table(NAME).to_pyarrow()
        return table, pc.sum(table["n"]).as_py()

    hold(place, table_and_sum)


def copy(place: str) -> None:
    """Loads a copy of its own, as a data frame."""
    import polars as pl

    pl.DataFrame({"n": [1, 2, 3]})["n"].sum()

    def table_and_sum() -> tuple[object, int]:
        with pa.OSFile(str(Path(place).with_name("table.arrow"))) as file:  # read, not mapped
            frame = pl.from_arrow(pa.ipc.open_file(file).read_all(), rechunk=False)
        assert isinstance(frame, pl.DataFrame)
        return frame, frame["n"].sum()

    hold(place, table_and_sum)


def hold(place: str, table_and_sum: Callable[[], tuple[object, int]]) -> None:
    """Says that it is there, waits for the word, reads every byte of the table, says what it has read, and stays."""
    say(f"{place}.ready", "")
    word = Path(place).with_name("read")
    while not word.exists():
        time.sleep(0.01)
    table, total = table_and_sum()
    say(f"{place}.sum", str(total))
    while table is not None:  # it is held as long as the process lives
        time.sleep(60)


def say(path: str, text: str) -> None:
    """A file that is there when it is whole."""
    half = Path(f"{path}.part")
    half.write_text(text)
    half.replace(path)


if __name__ == "__main__":
    django.setup()
    what, *rest = sys.argv[1:]
    if what == "put":
        put(int(rest[0]))
    elif what == "write":
        write(int(rest[0]), rest[1])
    elif what == "copy":
        copy(rest[0])
    else:
        read(rest[0])
