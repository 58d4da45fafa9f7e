"""The table endpoint's work in plain Python: read with pyarrow, then filter, join, group and sort in a loop.

The same question as the SQL of `table_summary` in molt_exports.json: lines of ten pieces or more, joined with the
region table, per zone and category, the greatest turnover first.
"""

import csv
from functools import cache
from typing import Any

import pyarrow as pa
from django.conf import settings

from orders.errors import OrderError

MIN_QTY = 10
SUMMARY = pa.schema(
    [("zone", pa.string()), ("category", pa.string())]
    + [(name, pa.int64()) for name in ("lines", "pieces", "cents", "largest")]
)
COLUMNS = {
    "region": ("text", pa.types.is_string),
    "category": ("text", pa.types.is_string),
    "qty": ("integers", pa.types.is_integer),
    "price_cents": ("integers", pa.types.is_integer),
}


@cache
def zones() -> dict[str, str]:
    """The zone of each region, read once per process."""
    with open(settings.REGIONS_CSV, newline="") as file:
        return {row["region"]: row["zone"] for row in csv.DictReader(file)}


def read(body: bytes) -> list[list[Any]]:
    """The columns of an Arrow IPC stream that the summary needs, as lists in the order of COLUMNS.

    Raises OrderError for bytes that are no valid Arrow stream and for a column that is missing or of another type.
    """
    try:
        table = pa.ipc.open_stream(body).read_all()
        for name, (kind, fits) in COLUMNS.items():
            if table.column_names.count(name) != 1:
                present = ", ".join(table.column_names)
                raise OrderError(f"the table needs one column {name}; it has {present}", None, name)
            if not fits(table.schema.field(name).type):
                found = table.schema.field(name).type
                raise OrderError(f"the column {name} must hold {kind}; it holds {found}", None, name)
        table = table.select(list(COLUMNS))
        table.validate(full=True)  # foreign bytes: offsets beyond the buffers or bad UTF-8 must not reach the loop
    except (pa.ArrowException, OSError) as reason:
        raise OrderError(f"the body is no valid Arrow IPC stream: {reason}", None, None) from reason
    return [column.to_pylist() for column in table.columns]


def summarize(body: bytes) -> list[dict[str, Any]]:
    """One row per zone and category: lines (how many), pieces, cents (turnover), largest (line, in cents)."""
    zone_of = zones()
    groups: dict[tuple[str, str], list[int]] = {}
    for region, category, qty, price in zip(*read(body), strict=True):
        if qty is None or price is None or qty < MIN_QTY or region not in zone_of:
            continue
        cents = qty * price
        key = (zone_of[region], category)
        group = groups.get(key)
        if group is None:
            groups[key] = [1, qty, cents, cents]
        else:
            group[0] += 1
            group[1] += qty
            group[2] += cents
            if cents > group[3]:
                group[3] = cents
    rows = [
        {"zone": zone, "category": category, "lines": lines, "pieces": pieces, "cents": cents, "largest": largest}
        for (zone, category), (lines, pieces, cents, largest) in groups.items()
    ]
    rows.sort(key=lambda row: (-row["cents"], row["zone"], row["category"]))
    return rows


def as_arrow(rows: list[dict[str, Any]]) -> bytes:
    """The summary as the bytes of an Arrow IPC stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, SUMMARY) as writer:
        writer.write_table(pa.Table.from_pylist(rows, schema=SUMMARY))
    return sink.getvalue().to_pybytes()
