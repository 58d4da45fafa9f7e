"""A Django process that reads a resident table, or puts it: `python -m bench.runner.reader read PATH|put BYTES`."""

import sys
import time
from pathlib import Path

import django
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from molt_accel.django import client

NAME = "big"
ROWS = 1 << 16  # of a batch


def put(size: int) -> None:
    """Publishes a table of so many bytes: one column of 64-bit numbers."""
    batches = [
        pa.record_batch([np.arange(start, start + ROWS, dtype=np.int64)], names=["n"])
        for start in range(0, size // 8, ROWS)
    ]
    client().put(NAME, pa.Table.from_batches(batches))


def read(place: str) -> None:
    """Says that it is there, waits for the word, reads every byte of the table, says what it has read, and stays."""
    client().ping()
    pc.sum(pa.array([1, 2, 3]))  # whatever a first sum makes, it makes before memory is looked at
    say(f"{place}.ready", "")
    word = Path(place).with_name("read")
    while not word.exists():
        time.sleep(0.01)
    table = client().table(NAME).to_pyarrow()
    say(f"{place}.sum", str(pc.sum(table["n"]).as_py()))
    while True:
        time.sleep(60)


def say(path: str, text: str) -> None:
    """A file that is there when it is whole."""
    half = Path(f"{path}.part")
    half.write_text(text)
    half.replace(path)


if __name__ == "__main__":
    django.setup()
    if sys.argv[1] == "put":
        put(int(sys.argv[2]))
    else:
        read(sys.argv[2])
