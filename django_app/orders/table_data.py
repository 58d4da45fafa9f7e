"""Seeded Arrow tables for the table endpoints."""

from random import Random

import pyarrow as pa

from orders.rules import TAX_RATES

CATEGORIES = ["books", "clothing", "electronics", "garden", "grocery", "sports", "tools", "toys"]

SCHEMA = pa.schema(
    [
        pa.field("order_id", pa.int64(), nullable=False),
        pa.field("region", pa.string(), nullable=False),
        pa.field("category", pa.string(), nullable=False),
        pa.field("qty", pa.int64(), nullable=False),
        pa.field("price_cents", pa.int64(), nullable=False),
    ]
)


def table(rows: int = 10_000, seed: int = 1) -> pa.Table:
    """Order lines as a table; the same rows and seed give the same table."""
    random = Random(seed)
    columns = [
        list(range(1, rows + 1)),
        random.choices(list(TAX_RATES), k=rows),
        random.choices(CATEGORIES, k=rows),
        [random.randint(1, 60) for _ in range(rows)],
        [random.randint(99, 99_999) for _ in range(rows)],
    ]
    return pa.table(columns, schema=SCHEMA)


def stream(table: pa.Table) -> bytes:
    """A table as the bytes of an Arrow IPC stream: the body that the table endpoints take."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def body(rows: int = 10_000, seed: int = 1) -> bytes:
    """The request body of the table endpoints: `stream(table(rows, seed))`."""
    return stream(table(rows, seed))
