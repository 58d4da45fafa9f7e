"""Generated tables of every Arrow type, in and out: put and read, put and selected, called with and answered."""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import molt_accel

EXAMPLES = int(os.environ.get("MOLT_TEST_EXAMPLES", "60"))
"""Tables for each way; more by hand."""
MOMENTS = st.datetimes(dt.datetime(1900, 1, 1), dt.datetime(2200, 1, 1))
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
SPAN = st.integers(-(2**62), 2**62)


def ints(bits: int, signed: bool = True) -> st.SearchStrategy[int]:
    return st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else st.integers(0, 2**bits - 1)


def decimals(digits: int, places: int) -> st.SearchStrategy[Decimal]:
    return st.integers(-(10**digits) + 1, 10**digits - 1).map(lambda number: Decimal(number).scaleb(-places))


def decimal_type(digits: int, places: int) -> Any:
    return pa.decimal256(digits, places) if digits > 38 else pa.decimal128(digits, places)


FLAT: list[tuple[pa.DataType, st.SearchStrategy[Any]]] = [
    (pa.null(), st.none()),
    (pa.bool_(), st.booleans()),
    (pa.int8(), ints(8)),
    (pa.int16(), ints(16)),
    (pa.int32(), ints(32)),
    (pa.int64(), ints(64)),
    (pa.uint8(), ints(8, False)),
    (pa.uint16(), ints(16, False)),
    (pa.uint32(), ints(32, False)),
    (pa.uint64(), ints(64, False)),
    (pa.float32(), st.floats(width=32)),
    (pa.float64(), st.floats()),
    (decimal_type(5, 2), decimals(5, 2)),
    (decimal_type(38, 10), decimals(28, 10)),
    (decimal_type(60, 4), decimals(56, 4)),
    (pa.string(), TEXT),
    (pa.large_string(), TEXT),
    (pa.string_view(), TEXT),
    (pa.binary(), st.binary(max_size=20)),
    (pa.large_binary(), st.binary(max_size=20)),
    (pa.binary_view(), st.binary(max_size=20)),
    (pa.binary(4), st.binary(min_size=4, max_size=4)),
    (pa.date32(), st.dates(dt.date(1900, 1, 1), dt.date(2200, 1, 1))),
    (pa.date64(), st.dates(dt.date(1900, 1, 1), dt.date(2200, 1, 1))),
    (pa.time32("ms"), st.times().map(lambda time: time.replace(microsecond=time.microsecond // 1000 * 1000))),
    (pa.time64("us"), st.times()),
    (pa.timestamp("s"), MOMENTS.map(lambda moment: moment.replace(microsecond=0))),
    (pa.timestamp("us"), MOMENTS),
    (pa.timestamp("us", "Europe/Berlin"), MOMENTS.map(lambda moment: moment.replace(tzinfo=dt.UTC))),
    (pa.timestamp("ns"), st.integers(-(2**62), 2**62)),
    (pa.duration("us"), st.timedeltas(dt.timedelta(days=-10_000), dt.timedelta(days=10_000))),
    (pa.dictionary(pa.int8(), pa.string()), st.sampled_from(["a", "b", "ü", ""])),
    (pa.dictionary(pa.int32(), pa.int64()), st.sampled_from([1, -(2**60), 7])),
]


def nested(
    inner: tuple[pa.DataType, st.SearchStrategy[Any]],
) -> list[tuple[pa.DataType, st.SearchStrategy[Any]]]:
    kind, values = inner
    some = st.none() | values
    return [
        (pa.list_(kind), st.lists(some, max_size=4)),
        (pa.large_list(kind), st.lists(some, max_size=4)),
        (pa.list_(kind, 2), st.lists(some, min_size=2, max_size=2)),
        (pa.struct([("a", kind), ("b", pa.int32())]), st.fixed_dictionaries({"a": some, "b": st.none() | ints(32)})),
        (pa.map_(pa.string(), kind), st.dictionaries(TEXT, some, max_size=3).map(lambda made: list(made.items()))),
        (pa.list_(pa.list_(kind)), st.lists(st.none() | st.lists(some, max_size=3), max_size=3)),
    ]


NESTED = [pair for inner in (FLAT[5], FLAT[15], FLAT[12], FLAT[27]) for pair in nested(inner)]
KINDS = FLAT + NESTED


@st.composite
def tables(draw: Any) -> pa.Table:
    """Zero to five columns, zero to forty rows, in chunks, as a slice of something larger, with and without nulls."""
    kinds = draw(st.lists(st.sampled_from(range(len(KINDS))), max_size=5))
    rows = draw(st.integers(0, 40))
    cut = sorted(draw(st.lists(st.integers(0, rows), max_size=2)))
    columns, fields = [], []
    for number, index in enumerate(kinds):
        kind, values = KINDS[index]
        drawn = draw(st.lists(st.none() | values if draw(st.booleans()) else values, min_size=rows, max_size=rows))
        whole = column(drawn, kind)
        columns.append(pa.chunked_array([whole[a:b] for a, b in zip([0, *cut], [*cut, rows], strict=True)], kind))
        fields.append(pa.field(f"c{number}", kind))
    schema = pa.schema(fields, {"made": "by hypothesis"} if draw(st.booleans()) else None)
    return pa.Table.from_arrays(columns, schema=schema)


def column(values: list[Any], kind: pa.DataType) -> pa.Array:
    if pa.types.is_dictionary(kind):
        return pa.array(values, kind.value_type).dictionary_encode().cast(kind)
    return pa.array(values, kind)


@pytest.fixture(scope="module")
def worker() -> Iterator[molt_accel.Client]:
    with molt_accel.spawn(arena="64MiB", threads=2) as client:
        yield client


def same(left: pa.Table, right: pa.Table) -> bool:
    """The same values; NaN is itself."""
    return left.schema.names == right.schema.names and repr(left.to_pylist()) == repr(right.to_pylist())


few = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))


@few
@given(tables())
def test_what_is_put_is_read_with_its_types(worker: molt_accel.Client, table: pa.Table) -> None:
    worker.put("t", table)
    with worker.table("t") as read:
        back = read.to_pyarrow()
    assert back.schema == table.schema and back.num_rows == table.num_rows and same(back, table)


@few
@given(tables().filter(lambda table: table.num_columns > 0))
def test_what_is_put_is_selected(worker: molt_accel.Client, table: pa.Table) -> None:
    worker.put("t", table)
    with worker.query("select * from t") as answer:
        back = answer.to_pyarrow()
    assert back.num_rows == table.num_rows and same(back, table)


@few
@given(tables().filter(lambda table: table.num_columns > 0))
def test_what_travels_with_a_query_is_selected(worker: molt_accel.Client, table: pa.Table) -> None:
    with worker.query("select * from t", tables={"t": table}) as answer:
        back = answer.to_pyarrow()
    assert back.num_rows == table.num_rows and same(back, table)


@pytest.mark.parametrize("index", range(len(KINDS)), ids=[str(kind) for kind, _ in KINDS])
def test_every_type_by_itself(worker: molt_accel.Client, index: int) -> None:
    """What the generated tables may happen not to hold: each type once for sure, full, empty and of nulls alone."""
    kind, values = KINDS[index]

    @settings(max_examples=5, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(values, min_size=1, max_size=20))
    def holds(drawn: list[Any]) -> None:
        for rows in (drawn, [None] * 3, []):
            table = pa.table({"c": column(rows, kind)})
            worker.put("t", table)
            with worker.table("t") as read, worker.query("select c, c as again from t") as answer:
                assert same(read.to_pyarrow(), table) and read.to_pyarrow().schema == table.schema
                assert answer.num_rows == len(rows)

    holds()


@pytest.mark.parametrize(
    "table",
    [
        pa.table({"c": pa.RunEndEncodedArray.from_arrays([2, 5], ["a", "b"])}),
        pa.table(
            {"c": pa.UnionArray.from_sparse(pa.array([0, 1], pa.int8()), [pa.array([1, 2]), pa.array(["a", "b"])])}
        ),
    ],
    ids=["run-end", "union"],
)
def test_types_that_cannot_be_carried_are_refused_by_name_or_carried(
    worker: molt_accel.Client, table: pa.Table
) -> None:
    try:
        worker.put("t", table)
        with worker.table("t") as read:
            assert read.to_pyarrow().to_pylist() == table.to_pylist()
    except molt_accel.MoltInvalidInput as refused:
        assert '"c"' in str(refused) or "column c" in str(refused), refused
