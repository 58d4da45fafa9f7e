"""SQL over resident tables answers what DuckDB answers on the same Arrow data: values, nulls, NaN, order. Over few rows, which
one thread reads whole, and over many, which several threads read in pieces and leave out where the zone maps allow it."""

# ruff: noqa: E501

from __future__ import annotations

import datetime as dt
import math
import random
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import duckdb
import pyarrow as pa
import pytest

import molt_accel

BERLIN = pa.timestamp("us", "Europe/Berlin")
SIZES = {"few": 5_000, "many": 220_000}
"""Rows of the order lines."""


def kinds(rows: int) -> int:
    """How many customers and products there are."""
    return max(120, rows // 40)


def orders(rows: int) -> pa.Table:
    """Order lines with every kind of column, and nulls, NaN, infinities, ties and negative numbers among the values. Their
    numbers and `placed` grow with the rows, so whole stretches of them can be left out; the others cannot."""
    draw = random.Random(7)

    def some(values: Any, nulls: float = 0.1) -> list[Any]:
        return [None if draw.random() < nulls else values() for _ in range(rows)]

    floats = [math.nan, math.inf, -math.inf, 0.0, -0.0]
    start = dt.datetime(2026, 3, 1)
    step = dt.timedelta(seconds=90 * 86_400) / rows
    at = [start + row * step for row in range(rows)]
    return pa.table(
        {
            "id": pa.array(range(rows), pa.int64()),
            "customer": pa.array(some(lambda: f"C{draw.randrange(kinds(rows)):03}", 0.05)),
            "region": pa.array(some(lambda: draw.choice(["north", "south", "Süden", ""]))).dictionary_encode(),
            "qty": pa.array(some(lambda: draw.randrange(-5, 100)), pa.int32()),
            "price": pa.array(some(lambda: Decimal(draw.randrange(-10_000, 1_000_000)) / 100), pa.decimal128(12, 2)),
            "weight": pa.array(some(lambda: round(draw.uniform(-1, 50), 3)), pa.float64()),
            "odd": pa.array(some(lambda: draw.choice([*floats, draw.random()])), pa.float64()),
            "day": pa.array(some(lambda: (start + dt.timedelta(days=draw.randrange(90))).date()), pa.date32()),
            "moment": pa.array(some(lambda: start + dt.timedelta(seconds=draw.randrange(10**7))), pa.timestamp("us")),
            "paid": pa.array(some(lambda: draw.random() < 0.5), pa.bool_()),
            "note": pa.array(some(lambda: draw.choice(["a%b", "a_b", "tab\t", "ünï", "x" * 40])), pa.large_string()),
            "product": pa.array(some(lambda: draw.randrange(kinds(rows)), 0.05), pa.int32()),
            "placed": pa.array(at, pa.timestamp("us")),
            "stamp": pa.array(at, pa.timestamp("us")).cast(pa.timestamp("us", "UTC")).cast(BERLIN),
        }
    )


def customers(rows: int) -> pa.Table:
    """Customers of which some have no order, and orders have some that are not here."""
    draw = random.Random(8)
    numbers = range(40, kinds(rows) + 40)
    count = len(numbers) + 2
    return pa.table(
        {
            "customer": [f"C{number:03}" for number in numbers] + ["C050", None],
            "tier": pa.array([draw.choice(["gold", "iron", None]) for _ in range(count)]),
            "since": pa.array(
                [dt.date(2020, 1, 1) + dt.timedelta(days=13 * (n % 250)) for n in range(count)], pa.date32()
            ),
            "credit": pa.array([draw.choice([None, 10, 200, 3000]) for _ in range(count)], pa.int64()),
        }
    )


def products(rows: int) -> pa.Table:
    """A dimension: every key once. Some products were never ordered, and some orders are of none of these."""
    draw = random.Random(9)
    numbers = list(range(30, kinds(rows) + 60))
    draw.shuffle(numbers)
    return pa.table(
        {
            "product": pa.array(numbers, pa.int64()),
            "maker": pa.array([draw.choice(["acme", "globex", None]) for _ in numbers]),
            "size": pa.array([draw.choice([None, 1, 2, 40]) for _ in numbers], pa.int16()),
        }
    )


def parts(rows: int) -> pa.Table:
    """No dimension: keys that are there again and again, and keys that are null, as on the other side."""
    draw = random.Random(10)
    keys = [None if draw.random() < 0.1 else draw.randrange(20, kinds(rows) + 20) for _ in range(kinds(rows) * 2)]
    return pa.table({"product": pa.array(keys, pa.int32()), "pieces": pa.array(range(len(keys)), pa.int64())})


# Nothing is rounded at a tie: 27.45 is no double, and what becomes of it differs between versions of DuckDB.
QUERIES = """
select count(*), count(customer), count(distinct customer), count(qty) from orders
select sum(qty), min(qty), max(qty), avg(qty) from orders
select sum(price), min(price), max(price) from orders
select avg(weight), stddev_samp(weight), var_pop(weight) from orders
select region, count(*) from orders group by region
select region, paid, count(*), sum(qty) from orders group by region, paid
select customer, sum(price) as total from orders group by customer having sum(price) > 300000
select day, min(moment), max(moment) from orders group by day
select count(*) from orders where qty > 10 and price < 500
select count(*) from orders where qty > 10 or price < 500
select count(*) from orders where not (qty > 10)
select id from orders where qty is null and price is null
select id from orders where customer in ('C001', 'C077', null)
select id from orders where customer not in ('C001', 'C077')
select id from orders where qty between 3 and 5 and region is not null
select id from orders where note like 'a\\%b' escape '\\'
select id from orders where note like '%b' and region like 'S%'
select id from orders where region = '' or note = 'ünï'
select upper(region), lower(note), length(region) from orders where id < 300
select id, coalesce(customer, 'nobody'), nullif(qty, 7) from orders where id < 400
select id, case when qty > 50 then 'many' when qty is null then 'unknown' else 'few' end from orders where id < 400
select distinct region from orders
select distinct region, paid from orders
select id, price from orders order by price desc nulls last, id limit 50
select id, qty from orders order by qty asc nulls first, id limit 50 offset 20
select customer, count(*) as n from orders group by customer order by n desc, customer limit 10
select c.tier, count(*), sum(o.qty) from orders o join customers c on o.customer = c.customer group by c.tier
select o.id, c.tier from orders o left join customers c on o.customer = c.customer where o.id < 500
select c.customer, o.id from orders o right join customers c on o.customer = c.customer where o.id is null
select count(*) from orders o full join customers c on o.customer = c.customer
select c.customer from customers c where exists (select 1 from orders o where o.customer = c.customer and o.qty > 95)
select c.customer from customers c where not exists (select 1 from orders o where o.customer = c.customer)
select count(*) from orders o where o.customer in (select customer from customers where credit > 100)
select a.customer, b.customer from customers a cross join customers b where a.credit = 3000 and b.credit = 200 and a.since < date '2020-04-01' and b.since < date '2020-04-01'
select count(*) from orders a join orders b on a.customer = b.customer and a.id < b.id where a.region = 'north'
select a.id, b.id from orders a join orders b on a.id = b.id + 1 and a.qty > b.qty where a.id < 200
select o.id from orders o join customers c on o.customer = c.customer and o.day > c.since where c.credit < 100
with big as (select * from orders where price > 9000) select region, count(*) from big group by region
with t as (select customer, sum(price) s from orders group by customer) select max(s) from t
select * from (select region, sum(qty) q from orders group by region) t where q > 1000
select region, qty from orders where id < 50 union select region, qty from orders where id < 80
select region from orders where id < 50 union all select region from orders where id < 30
select customer from orders intersect select customer from customers
select customer from customers except select customer from orders
select id, row_number() over (partition by region order by price, id) from orders where id < 800
select customer, qty, n from (select *, row_number() over (partition by customer order by qty desc nulls last, id) n from orders) where n <= 3
select region, id from (select id, region, row_number() over (partition by region order by price desc nulls first, id) n from orders) where n = 1
select day, paid, odd, id from (select *, row_number() over (partition by day, paid order by abs(odd) nulls first, id) n from orders) where n < 4
select price, id, n from (select id, price, row_number() over (partition by price order by moment nulls last, id) n from orders where qty > 20) where 2 >= n and id > 100
select note, id from (select id, note, row_number() over (partition by note order by id desc) n, rank() over (partition by note order by id desc) r from orders) where n <= 5 and r <> 2
select id, rank() over (order by qty) from orders where id < 300
select id, dense_rank() over (partition by paid order by qty desc nulls last) from orders where id < 300
select id, sum(qty) over (partition by region order by id rows between 2 preceding and current row) from orders where id < 500
select id, lag(qty) over (order by id), lead(qty, 2) over (order by id) from orders where id < 300
select id, first_value(price) over (partition by region order by id) from orders where id < 300
select id, avg(weight) over (partition by region) from orders where id < 300
select id, sum(price) over (order by id) from orders where id < 300
select date_trunc('month', day), count(*) from orders group by 1
select date_trunc('hour', moment), count(*) from orders where id < 500 group by 1
select extract(year from day), extract(month from day), count(*) from orders group by 1, 2
select id, day + interval '3 days' from orders where id < 100
select count(*) from orders where day >= date '2026-04-01' and day < date '2026-05-01'
select count(*) from orders where moment >= timestamp '2026-03-20 12:00:00'
select id, odd from orders where odd = odd and id < 300
select id, odd > 0.5, odd < 0 from orders where id < 300 and not isnan(odd)
select min(odd), max(odd) from orders where not isnan(odd)
select count(*) from orders where isnan(odd)
select id, cast(qty as varchar), cast(price as double), cast(floor(weight) as bigint) from orders where id < 100 and weight * 10 % 5 <> 0
select id, price * 2, price + 1, price - qty from orders where id < 200
select sum(price * qty) from orders
select id, round(weight + 0.0003, 1), floor(weight), ceil(weight), abs(qty) from orders where id < 200
select id, qty % 7, -qty from orders where id < 200
select region, median(weight) from orders group by region
select bool_and(paid), bool_or(paid) from orders
select region, string_agg(customer, ',' order by id) from orders where id < 60 group by region
select count(*) filter (where paid), sum(qty) filter (where region = 'north') from orders
select region, paid, grouping(paid), sum(qty) from orders group by rollup (region, paid)
select region, paid, sum(qty) from orders group by grouping sets ((region), (paid), ())
select substr(note, 2, 2), concat(region, '-', customer), replace(note, 'x', 'y') from orders where id < 100
select trim(note), position('b' in note), note || '!' from orders where id < 100
select greatest(qty, 10), least(qty, 10) from orders where qty is not null and id < 200
select (select max(qty) from orders) - qty from orders where id < 50
select o.id, (select max(c.credit) from customers c where c.customer = o.customer) from orders o where o.id < 100
select id from orders where qty > (select avg(qty) from orders) and id < 500
select corr(qty, weight), covar_samp(qty, weight) from orders
select percentile_cont(0.25) within group (order by weight) from orders
select region, percentile_cont(0.9) within group (order by weight) from orders group by region
select percentile_cont(0.5) within group (order by qty desc), median(qty), median(price) from orders
select region, first_value(qty order by id desc), last_value(qty order by weight, id) from orders where weight is not null group by region
select paid, array_agg(id order by qty desc nulls last, id) from orders where id < 200 group by paid
select count(distinct product), sum(distinct qty) from orders
select var_samp(weight), stddev_pop(weight), regr_slope(weight, qty) from orders
select count(*), sum(p.size) from orders o join products p on o.product = p.product
select p.maker, count(*), sum(o.qty) from orders o join products p on o.product = p.product group by p.maker
select o.id, p.maker from orders o left join products p on o.product = p.product where o.id % 37 = 0
select count(*), count(p.product), count(o.product) from orders o left join products p on o.product = p.product
select p.product, o.id from orders o right join products p on o.product = p.product where o.id is null
select count(*), count(p.product), count(o.id) from orders o right join products p on o.product = p.product
select count(*), count(p.product), count(o.id) from orders o full join products p on o.product = p.product
select count(*) from orders o where o.product in (select product from products where size = 2)
select count(*) from orders o where o.product not in (select product from products where size = 2)
select count(*) from orders o where not exists (select 1 from products p where p.product = o.product)
select p.product from products p where exists (select 1 from orders o where o.product = p.product and o.qty = 99)
select p.product from products p where not exists (select 1 from orders o where o.product = p.product and o.qty > 20)
select count(*) from orders o join products p on o.product = p.product and o.qty > p.size
select count(*) from orders o left join products p on o.product = p.product and o.qty > 50 where p.maker is null
select p.maker, c.tier, count(*) from orders o join products p on o.product = p.product join customers c on o.customer = c.customer group by 1, 2
select count(*) from orders o join products p on o.product = p.product where p.maker = 'acme' and o.placed >= timestamp '2026-05-20 00:00:00'
select o.product, p.product from orders o join products p on o.product = p.product + 1 where o.id < 300
select count(*), sum(s.pieces) from orders o join parts s on o.product = s.product
select count(*), count(s.product), sum(s.pieces) from orders o left join parts s on o.product = s.product
select count(*), count(o.id), sum(s.pieces) from orders o right join parts s on o.product = s.product
select count(*), count(o.id), count(s.pieces) from orders o full join parts s on o.product = s.product
select count(*) from orders o where o.product in (select product from parts)
select count(*) from orders o where o.product not in (select product from parts)
select count(*) from orders o where o.product not in (select product from parts where product is not null)
select count(*) from parts s where not exists (select 1 from orders o where o.product = s.product and o.paid)
select a.pieces, b.pieces from parts a join parts b on a.product = b.product and a.pieces < b.pieces where a.pieces < 200
select count(*) from orders o join parts s on o.product = s.product and (o.customer = 'C001' or s.pieces < 100)
select count(*) from orders o join parts s on o.product is not distinct from s.product where o.id < 900
select count(*) from orders where placed >= timestamp '2026-05-01 06:30:00' and placed < timestamp '2026-05-01 18:00:00'
select count(*) from orders where placed::time >= time '18:00:00'
select count(*) from orders where moment::time < time '06:00:00' or moment::time >= time '22:15:00'
select count(*) from orders where placed::date = date '2026-04-17'
select count(*) from orders where cast(placed as date) between date '2026-03-05' and date '2026-03-06'
select extract(hour from placed), count(*) from orders where extract(dow from placed) = 1 group by 1
select count(*) from orders where cast(id as varchar) like '1%'
select count(*) from orders where cast(id as varchar) < '15'
select count(*) from orders where cast(qty as boolean) = false
select count(*) from orders where cast(id as double) / 7 > 600 and cast(id as smallint) is not null and id < 30000
select count(*) from orders where -id > -50 and id * -2 < -20
select count(*) from orders where abs(id - 2500) < 10
select count(*) from orders where odd > 100
select count(*) from orders where not (odd <= 100)
select count(*) from orders where odd <> 0.0
select count(*) from orders where stamp >= timestamptz '2026-03-29 00:30:00+00:00' and stamp < timestamptz '2026-03-29 03:30:00+02:00'
select count(*) from orders where stamp > timestamptz '2026-05-29 12:00:00+02:00' - interval '36 hours'
select date_trunc('day', stamp), count(*) from orders group by 1
select date_trunc('month', stamp), min(stamp), max(stamp) from orders group by 1
select extract(hour from stamp), count(*) from orders group by 1
select count(*) from orders where extract(hour from stamp) between 22 and 23
select id, stamp from orders where id % 1100 = 0 order by stamp desc
""".strip().splitlines()

APPROXIMATE = """
approx_distinct(customer) | count(distinct customer) | 0.05
approx_distinct(product) | count(distinct product) | 0.05
approx_distinct(id) | count(distinct id) | 0.05
approx_median(weight) | quantile_cont(weight, 0.5) | 0.02
approx_percentile_cont(weight, 0.9) | quantile_cont(weight, 0.9) | 0.02
approx_percentile_cont(weight, 0.05) | quantile_cont(weight, 0.05) | 0.1
""".strip().splitlines()
"""An estimate, what it estimates in DuckDB's words, and the share of that by which it may miss."""

IN_DUCKDB = {"last_value(": "last(", "first_value(qty order": "first(qty order"}


@pytest.fixture(scope="module", params=SIZES)
def both(request: pytest.FixtureRequest) -> Iterator[tuple[molt_accel.Client, duckdb.DuckDBPyConnection]]:
    there = duckdb.connect()
    # Parts of a moment are those of the column's zone; DuckDB has one zone for all of them.
    there.execute("set timezone = 'Europe/Berlin'")
    with molt_accel.spawn(arena="256MiB", threads=2) as here:
        for make in (orders, customers, products, parts):
            name, table = make.__name__, make(SIZES[request.param])
            here.put(name, table)
            there.register(name, table)
        yield here, there


def comparable(value: Any) -> Any:
    """One form for what both mean the same by: numbers by value, moments as moments."""
    if isinstance(value, float) and math.isnan(value):
        return "NaN"
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, (int, Decimal)):
        return float(value)
    if isinstance(value, dt.datetime):
        return value.astimezone(dt.UTC).replace(tzinfo=None) if value.tzinfo else value
    if isinstance(value, dt.date):
        return dt.datetime(value.year, value.month, value.day)
    return value


def rows_of(table: pa.Table) -> list[tuple[Any, ...]]:
    columns = [column.to_pylist() for column in table.columns]
    rows = [tuple(map(comparable, row)) for row in zip(*columns, strict=True)]
    return sorted(rows, key=lambda row: [(value is None, str(type(value)), _rounded(value)) for value in row])


def _rounded(value: Any) -> Any:
    return str(value) if not isinstance(value, float) else f"{value:.6e}"


def agree(left: Any, right: Any) -> bool:
    if isinstance(left, float) and isinstance(right, float):
        return left == right or math.isclose(left, right, rel_tol=1e-9, abs_tol=1e-9)
    return bool(left == right)


@pytest.mark.parametrize("query", QUERIES, ids=range(len(QUERIES)))
def test_the_answer_is_duckdbs(both: Any, query: str) -> None:
    here, there = both
    theirs_sql = query
    for ours, theirs in IN_DUCKDB.items():
        theirs_sql = theirs_sql.replace(ours, theirs)
    ours, theirs = here.query(query).to_pyarrow(), there.sql(theirs_sql).to_arrow_table()
    left, right = rows_of(ours), rows_of(theirs)
    assert len(left) == len(right)
    assert [pair for pair in zip(left, right, strict=True) if not all(map(agree, *pair))] == []
    ordered = " order by " in query.rsplit(")", 1)[-1]
    if ordered:
        first = [tuple(map(comparable, row.values())) for row in ours.to_pylist()]
        assert first == [tuple(map(comparable, row.values())) for row in theirs.to_pylist()], "in the same order"


@pytest.mark.parametrize("line", APPROXIMATE, ids=[line.split(" |")[0] for line in APPROXIMATE])
def test_an_estimate_is_as_good_as_it_says(both: Any, line: str) -> None:
    here, there = both
    ours, theirs, share = (part.strip() for part in line.split("|"))
    for where in ("true", "region = 'north'"):
        (estimate,) = here.query(f"select {ours} from orders where {where}").to_pyarrow().column(0).to_pylist()
        (truth,) = there.sql(f"select {theirs} from orders where {where}").fetchall()[0]
        assert estimate == pytest.approx(float(truth), rel=float(share)), where


def test_there_are_enough_of_them() -> None:
    assert len(set(QUERIES)) == len(QUERIES) >= 60
