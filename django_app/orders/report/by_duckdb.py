"""The report by DuckDB, over tables that each web process holds for itself."""

from functools import cache
from threading import Lock
from typing import Any

import duckdb

from orders.report import COLUMNS, TOP, files
from orders.report.asked import Asked

REPORT = """
with sold as (
    select l.day, l.category, l.customer, l.qty, l.net from order_lines l join customers c on c.id = l.customer
    where l.day between $first and $last and ($region is null or c.region = $region)
), days as (
    select day, category, count(*) lines, sum(qty) pieces, sum(net) net from sold group by all
), top_customers as (
    select customer, count(*) lines, sum(qty) pieces, sum(net) net from sold group by all
    order by net desc, customer limit $top
), top_days as (
    select day, sum(lines) lines, sum(pieces) pieces, sum(net) net from days group by all
    order by net desc, day limit $top
)
select 'days' part, day, category, null customer, null name, lines, pieces, net,
    sum(net) over (partition by category order by day) running from days
union all
select 'top_customers', null, null, customer, name, lines, pieces, net, null
    from top_customers join customers on id = customer
union all
select 'top_days', day, null, null, null, lines, pieces, net, null from top_days
order by part, case when part = 'days' then null else net end desc, day, category, customer
"""
_loading = Lock()


@cache
def _database() -> duckdb.DuckDBPyConnection:
    lines, customers = (str(files.need(path)) for path in (files.lines_path(), files.customers_path()))
    database = duckdb.connect()
    database.execute("create table customers as from read_parquet($1)", [customers])
    database.execute("create table order_lines as from read_parquet($1)", [lines])
    return database


def cursor() -> duckdb.DuckDBPyConnection:
    """A cursor over order lines and customers, which are read once per process."""
    with _loading:  # the cache alone would let two threads read at once
        return _database().cursor()


def report(asked: Asked) -> list[dict[str, Any]]:
    """What `orders.report` describes, from one statement."""
    given = {"region": asked.region, "first": asked.first, "last": asked.last, "top": TOP}
    return [dict(zip(COLUMNS, row, strict=True)) for row in cursor().execute(REPORT, given).fetchall()]
