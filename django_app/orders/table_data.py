"""Seeded Arrow tables for the table endpoints."""

from decimal import Decimal
from random import Random

import pyarrow as pa

from orders.generate import CATEGORIES, DISCOUNTS
from orders.rules import TAX_RATES

#: Money and shares are decimals, as in Django's DecimalField, in the narrowest kind that holds them. Those of 16 bytes
#: would have to be copied: pyarrow aligns buffers to 8 bytes, and Arrow in Rust needs them at 16.
SCHEMA = pa.schema(
    [
        pa.field("region", pa.string(), nullable=False),
        pa.field("category", pa.string(), nullable=False),
        pa.field("qty", pa.int32(), nullable=False),
        pa.field("price", pa.decimal32(9, 2), nullable=False),
        pa.field("discount", pa.decimal32(5, 4), nullable=False),
    ]
)


def table(rows: int = 10_000, seed: int = 1) -> pa.Table:
    """Order lines as a table; the same rows and seed give the same table."""
    random = Random(seed)
    columns = [
        random.choices(list(TAX_RATES), k=rows),
        random.choices(CATEGORIES, k=rows),
        [random.randint(1, 60) for _ in range(rows)],
        [Decimal(random.randint(100, 99_999)).scaleb(-2) for _ in range(rows)],
        [Decimal(discount) for discount in random.choices(DISCOUNTS, k=rows)],
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
