"""What every peer of the table endpoint shares: reading the body, money as integers, and writing the rows."""

from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
from django.core.serializers.json import DjangoJSONEncoder
from orders import table_data, table_summary

#: The question with money in integers: cents, shares in 1/10000, so the net is in 1/1000000. As molt's statement does, it
#: groups by region first and joins the few groups.
SQL = """
select zone, category, sum(l)::bigint as lines, sum(p)::bigint as pieces, sum(g)::bigint as gross, sum(n)::bigint as net
from (select region, category, count(*) as l, sum(qty) as p, sum(qty::bigint * price) as g,
             sum(qty::bigint * price * (10000 - discount)) as n
      from orders where qty >= 10 group by region, category) o
join regions using (region) group by zone, category order by net desc, zone, category
"""
Row = tuple[str, str, int, int, int, int]
COLUMNS = ("region", "category", "qty", "price", "discount")


@cache
def regions() -> dict[str, list[str]]:
    """The resident table of regions, by columns."""
    zones = table_summary.zones()
    return {"region": list(zones), "zone": list(zones.values())}


def answer(body: bytes, ask: Callable[[pa.Table], Iterable[Row]]) -> bytes:
    """The summary of an Arrow stream by `ask`, which is handed its columns with prices in cents and discounts in 1/10000.

    Its rows are zone, category, lines, pieces, gross in cents, net in 1/1000000. Tables of other types than the demo's
    are valid as well, and are answered by plain Python.
    """
    table = table_summary.read_table(body)
    if any(table.schema.field(name).type != table_data.SCHEMA.field(name).type for name in COLUMNS):
        return DjangoJSONEncoder().encode(table_summary.summarize(body)).encode()
    rows = ask(integers(table.combine_chunks())) if table.num_rows else ()
    return msgspec.json.encode([
        {"zone": zone, "category": category, "lines": lines, "pieces": pieces, "gross": money(gross, 2), "net": money(net, 6)}
        for zone, category, lines, pieces, gross, net in rows
    ])  # fmt: skip


def integers(table: pa.Table) -> pa.Table:
    """The same with the decimals' own integers for decimals: a view of the same bytes, nothing is copied."""
    for name in ("price", "discount"):
        decimals = table[name].chunk(0)
        whole = pa.Array.from_buffers(pa.int32(), len(decimals), [None, decimals.buffers()[1]], offset=decimals.offset)
        table = table.set_column(table.column_names.index(name), name, whole)
    return table


def money(number: int, places: int) -> str:
    """An integer of 10**-places as decimal text."""
    whole, rest = divmod(number, 10**places)
    return f"{whole}.{rest:0{places}}"


def ordered(rows: Iterable[Row]) -> list[Row]:
    """In the order of the answer."""
    return sorted(rows, key=lambda row: (-row[5], row[0], row[1]))


def codes(column: pa.ChunkedArray) -> tuple[np.ndarray, list[Any]]:
    """A column of words as numbers, and the words."""
    encoded = column.chunk(0).dictionary_encode()
    return encoded.indices.to_numpy(zero_copy_only=False), encoded.dictionary.to_pylist()
