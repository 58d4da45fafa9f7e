"""Polars inside the view: one lazy question, one thread a process."""

from functools import cache, partial

import polars as pl
import pyarrow as pa
from orders.table_summary import MIN_QTY

from . import tables

SUMS = ("lines", "pieces", "gross", "net")


@cache
def regions() -> pl.LazyFrame:
    """The regions, made once in a process."""
    return pl.LazyFrame(tables.regions())


def ask(table: pa.Table) -> list[tables.Row]:
    """Filter, group by region, join the few groups, group by zone, sort."""
    qty = pl.col("qty").cast(pl.Int64)
    gross = qty * pl.col("price")
    return (
        pl.from_arrow(table)
        .lazy()
        .filter(pl.col("qty") >= MIN_QTY)
        .group_by("region", "category")
        .agg(
            lines=pl.len().cast(pl.Int64),
            pieces=qty.sum(),
            gross=gross.sum(),
            net=(gross * (10_000 - pl.col("discount"))).sum(),
        )
        .join(regions(), on="region")
        .group_by("zone", "category")
        .agg(pl.col(SUMS).sum())
        .sort("net", "zone", "category", descending=[True, False, False])
        .select("zone", "category", *SUMS)
        .collect()
        .rows()
    )


answer = partial(tables.answer, ask=ask)
