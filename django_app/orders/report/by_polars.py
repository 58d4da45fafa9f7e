"""The report by Polars, over tables that each web process holds for itself."""

from functools import cache
from threading import Lock
from typing import Any

import polars as pl

from orders.report import COLUMNS, TOP, files
from orders.report.asked import Asked

_loading = Lock()


@cache
def _tables() -> tuple[pl.DataFrame, pl.DataFrame]:
    files.need(files.lines_path())
    return pl.read_parquet(files.lines_path()), pl.read_parquet(files.customers_path())


def tables() -> tuple[pl.DataFrame, pl.DataFrame]:
    """Order lines and customers, read once per process."""
    with _loading:  # the cache alone would let two threads read at once
        return _tables()


def report(asked: Asked) -> list[dict[str, Any]]:
    """What `orders.report` describes."""
    lines, customers = tables()
    buyers = customers.lazy()
    if asked.region is not None:
        buyers = buyers.filter(pl.col("region") == asked.region)
    sold = (
        lines.lazy()
        .filter(pl.col("day").is_between(asked.first, asked.last))
        .join(buyers, left_on="customer", right_on="id")
    )
    sums = pl.len().alias("lines"), pl.col("qty").cast(pl.Int64).sum().alias("pieces"), pl.col("net").sum()
    days = (
        sold.group_by("day", "category")
        .agg(*sums)
        .with_columns(pl.col("category").cast(pl.String))
        .sort("day", "category")
        .with_columns(running=pl.col("net").cum_sum().over("category"))
    )
    by_customer = sold.group_by("customer").agg(pl.col("name").first(), *sums)
    by_day = sold.group_by("day").agg(*sums)
    parts = {
        "days": days,
        "top_customers": by_customer.sort("net", "customer", descending=[True, False]).head(TOP),
        "top_days": by_day.sort("net", "day", descending=[True, False]).head(TOP),
    }
    found = zip(parts, pl.collect_all(list(parts.values())), strict=True)
    return [dict.fromkeys(COLUMNS) | {"part": part} | row for part, rows in found for row in rows.to_dicts()]
