"""An Arrow Flight service beside Django: the view hands it the table over a Unix socket, Polars answers there.

`python -m bench.peers.flight_sidecar SOCKET` serves. Connections are kept, one for each thread of a web process.
"""

import os
import sys
import threading
from collections.abc import Iterator
from functools import partial

import pyarrow as pa
from pyarrow import flight

from . import tables

mine = threading.local()
ASKED = flight.FlightDescriptor.for_command(b"summary")
ANSWER = pa.schema(
    [
        ("zone", pa.string()),
        ("category", pa.string()),
        *((name, pa.int64()) for name in ("lines", "pieces", "gross", "net")),
    ]
)


class Service(flight.FlightServerBase):
    """Takes a table and gives the summary."""

    def do_exchange(self, context, descriptor, reader, writer) -> None:  # noqa: D102
        from .polars_view import ask

        rows = ask(reader.read_all().combine_chunks())
        columns = zip(*rows, strict=True) if rows else [[] for _ in ANSWER]
        writer.begin(ANSWER)
        writer.write_table(
            pa.table([pa.array(column, field.type) for column, field in zip(columns, ANSWER, strict=True)], ANSWER)
        )


def client() -> flight.FlightClient:
    """This thread's, kept."""
    if not hasattr(mine, "client"):
        mine.client = flight.connect(os.environ["MOLT_BENCH_FLIGHT"])
    return mine.client


def ask(table: pa.Table) -> Iterator[tables.Row]:
    """One exchange: the table there, the summary back."""
    writer, reader = client().do_exchange(ASKED)
    with writer:
        writer.begin(table.schema)
        writer.write_table(table)
        writer.done_writing()
        answered = reader.read_all()
    return zip(*(column.to_pylist() for column in answered.columns), strict=True)


answer = partial(tables.answer, ask=ask)


def main(place: str) -> None:
    """Serves until the process ends."""
    Service(f"grpc+unix://{place}").serve()


if __name__ == "__main__":
    main(sys.argv[1])
