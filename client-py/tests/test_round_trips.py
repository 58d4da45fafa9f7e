"""Generated tables of every Arrow type, in and out: put and read, put and selected, called with and answered."""

from __future__ import annotations

import ctypes
import datetime as dt
import itertools
import os
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import arro3.core
import duckdb
import nanoarrow
import polars
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


def intervals() -> st.SearchStrategy[Any]:
    return st.builds(lambda *parts: pa.MonthDayNano(parts), ints(32), ints(32), ints(64))


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
    (pa.float16(), st.floats(width=16)),
    (pa.float32(), st.floats(width=32)),
    (pa.float64(), st.floats()),
    (pa.decimal32(7, 3), decimals(7, 3)),
    (pa.decimal64(16, 0), decimals(16, 0)),
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
    (pa.time32("s"), st.times().map(lambda time: time.replace(microsecond=0))),
    (pa.time32("ms"), st.times().map(lambda time: time.replace(microsecond=time.microsecond // 1000 * 1000))),
    (pa.time64("us"), st.times()),
    (pa.time64("ns"), st.integers(0, 86_400 * 10**9 - 1)),
    (pa.timestamp("s"), MOMENTS.map(lambda moment: moment.replace(microsecond=0))),
    (pa.timestamp("ms"), MOMENTS.map(lambda moment: moment.replace(microsecond=moment.microsecond // 1000 * 1000))),
    (pa.timestamp("us"), MOMENTS),
    (pa.timestamp("us", "Europe/Berlin"), MOMENTS.map(lambda moment: moment.replace(tzinfo=dt.UTC))),
    (pa.timestamp("ns"), st.integers(-(2**62), 2**62)),
    (pa.timestamp("ms", "+05:30"), MOMENTS.map(lambda moment: moment.replace(microsecond=0, tzinfo=dt.UTC))),
    (pa.duration("us"), st.timedeltas(dt.timedelta(days=-10_000), dt.timedelta(days=10_000))),
    (pa.month_day_nano_interval(), intervals()),
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
        (pa.list_view(kind), st.lists(some, max_size=4)),
        (pa.large_list_view(kind), st.lists(some, max_size=4)),
        (pa.run_end_encoded(pa.int32(), kind), some),
        (pa.run_end_encoded(pa.int16(), kind), some),
        (pa.sparse_union([pa.field("a", kind), pa.field("b", pa.int32())]), st.tuples(st.just(0), some) | B),
        (pa.dense_union([pa.field("a", kind), pa.field("b", pa.int32())]), st.tuples(st.just(0), some) | B),
    ]


B = st.tuples(st.just(1), st.none() | ints(32))
"""A value of a union's other type: its number and the value."""
INNER = [pa.int64(), pa.string(), pa.decimal128(5, 2), pa.timestamp("us"), pa.dictionary(pa.int8(), pa.string())]
NESTED = [pair for inner in FLAT if inner[0] in INNER for pair in nested(inner)]
DEEP = [pair for inner in NESTED if inner[0] == pa.list_(pa.int64()) for pair in nested(inner)]
KINDS = FLAT + NESTED + DEEP


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
    """An array of these values. pyarrow makes no array of some types from Python's values: those are put together."""
    if pa.types.is_dictionary(kind):
        return pa.array(values, kind.value_type).dictionary_encode().cast(kind)
    if pa.types.is_run_end_encoded(kind):
        ends = [end for end in range(1, len(values) + 1) if end == len(values) or values[end] != values[end - 1]]
        runs = column([values[end - 1] for end in ends], kind.value_type)
        return pa.RunEndEncodedArray.from_arrays(pa.array(ends, kind.run_end_type), runs)
    if pa.types.is_union(kind):
        return union(values, kind)
    if not has_dictionary(kind):
        return pa.array(values, kind)
    missing = pa.array([value is None for value in values], pa.bool_())
    if pa.types.is_struct(kind):
        of = [column([(value or {}).get(field.name) for value in values], field.type) for field in kind]
        return pa.StructArray.from_arrays(of, fields=list(kind), mask=missing)
    whole = [value if value is not None else [None] * getattr(kind, "list_size", 0) for value in values]
    flat = [item for value in whole for item in value]
    offsets = [0, *itertools.accumulate(map(len, whole))]
    if pa.types.is_map(kind):
        keys, items = [key for key, _ in flat], [item for _, item in flat]
        return pa.MapArray.from_arrays(
            pa.array(offsets, pa.int32()),
            pa.array(keys, kind.key_type),
            column(items, kind.item_type),
            kind,
            mask=missing,
        )
    inner = column(flat, kind.value_type)
    if pa.types.is_fixed_size_list(kind):
        return pa.FixedSizeListArray.from_arrays(inner, type=kind, mask=missing)
    number = pa.int64() if pa.types.is_large_list(kind) or pa.types.is_large_list_view(kind) else pa.int32()
    starts = pa.array(offsets[:-1], number)
    if pa.types.is_list_view(kind):
        return pa.ListViewArray.from_arrays(starts, pa.array(map(len, whole), number), inner, kind, mask=missing)
    if pa.types.is_large_list_view(kind):
        return pa.LargeListViewArray.from_arrays(starts, pa.array(map(len, whole), number), inner, kind, mask=missing)
    make = pa.LargeListArray if pa.types.is_large_list(kind) else pa.ListArray
    return make.from_arrays(pa.array(offsets, number), inner, kind, mask=missing)


def union(values: list[Any], kind: pa.DataType) -> pa.Array:
    pairs = [value if value is not None else (0, None) for value in values]
    codes, names = pa.array([code for code, _ in pairs], pa.int8()), [field.name for field in kind]
    if kind.mode == "sparse":
        of = [column([v if code == n else None for code, v in pairs], field.type) for n, field in enumerate(kind)]
        return pa.UnionArray.from_sparse(codes, of, names)
    of = [column([v for code, v in pairs if code == n], field.type) for n, field in enumerate(kind)]
    seen: dict[int, itertools.count[int]] = {0: itertools.count(), 1: itertools.count()}
    places = pa.array([next(seen[code]) for code, _ in pairs], pa.int32())
    return pa.UnionArray.from_dense(codes, places, of, names)


def inside(kind: pa.DataType) -> list[pa.DataType]:
    """The types that it is made of."""
    return [kind.field(number).type for number in range(kind.num_fields)]


def has_dictionary(kind: pa.DataType) -> bool:
    """Whether one lies somewhere in it (or a type that is put together as one is)."""
    if pa.types.is_dictionary(kind) or pa.types.is_union(kind) or pa.types.is_run_end_encoded(kind):
        return True
    return any(map(has_dictionary, inside(kind)))


@pytest.fixture(scope="module")
def worker() -> Iterator[molt_accel.Client]:
    with molt_accel.spawn(arena="64MiB", threads=2) as client:
        yield client


def same(left: pa.Table, right: pa.Table) -> bool:
    """The same types, and the same values; NaN is itself."""
    return left.schema.equals(right.schema) and repr(left.to_pylist()) == repr(right.to_pylist())


few = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))


@few
@given(tables())
def test_what_is_put_is_read_with_its_types(worker: molt_accel.Client, table: pa.Table) -> None:
    worker.put("t", table)
    with worker.table("t") as read:
        back = read.to_pyarrow()
    assert (
        back.schema.equals(table.schema, check_metadata=True) and back.num_rows == table.num_rows and same(back, table)
    )


@few
@given(tables())
def test_what_is_put_is_selected(worker: molt_accel.Client, table: pa.Table) -> None:
    worker.put("t", table)
    with worker.query("select count(*) as n from t") as answer:
        assert answer.to_pyarrow().to_pylist() == [{"n": table.num_rows}]
    if table.num_columns:  # SQL has no answer without a column
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
                assert same(read.to_pyarrow(), table)
                back = answer.to_pyarrow()
                assert same(back.select(["c"]), table) and same(back.select(["again"]).rename_columns(["c"]), table)

    holds()


@pytest.mark.parametrize("rows", [0, 3])
def test_a_table_without_columns_has_rows(worker: molt_accel.Client, rows: int) -> None:
    bare = pa.table({"c": [1] * rows}).select([])
    assert (bare.num_rows, bare.num_columns) == (rows, 0)
    for tables_of_request in ({}, {"t": bare}):
        worker.put("t", bare if not tables_of_request else pa.table({"other": [1]}))
        with worker.query("select count(*) as n, 7 as seven from t", tables=tables_of_request) as answer:
            assert answer.to_pyarrow().to_pylist() == [{"n": rows, "seven": 7}]


DICTIONARY = pa.dictionary(pa.int8(), pa.string())
CHUNKED = [
    DICTIONARY,
    *(
        kind
        for kind, _ in NESTED
        if has_dictionary(kind) and not pa.types.is_union(kind) and DICTIONARY in inside(kind)
    ),
]


@pytest.mark.parametrize("kind", CHUNKED, ids=map(str, CHUNKED))
def test_each_chunk_may_have_another_dictionary(worker: molt_accel.Client, kind: pa.DataType) -> None:
    def wrap(value: str) -> Any:
        match str(kind).split("<")[0]:
            case "dictionary" | "run_end_encoded":
                return value
            case "struct":
                return {"a": value, "b": 1}
            case "map":
                return [("key", value)]
            case _:
                return [[value]] if "list<item: list<" in str(kind) else [value, None]

    chunks = [column([wrap(text) for text in texts], kind) for texts in (["a", "b"], ["c", "a", "a"], ["ü"])]
    table = pa.table({"c": pa.chunked_array(chunks, kind)})
    worker.put("t", table)
    for sql, sent in (("select * from t", {}), ("select * from u", {"u": table})):
        with worker.query(sql, tables=sent) as answer, worker.table("t") as read:
            assert same(answer.to_pyarrow(), table) and same(read.to_pyarrow(), table)


LIBRARIES: dict[str, Callable[[pa.Table], Any]] = {
    "pyarrow, batches": lambda table: table.to_reader(),
    "polars": polars.from_arrow,
    "pandas": lambda table: table.to_pandas(),
    "duckdb": lambda table: duckdb.connect().from_arrow(table),
    "duckdb, filtered": lambda table: duckdb.connect().from_arrow(table).filter("number >= 0 or number is null"),
    "arro3": arro3.core.Table.from_arrow,
    "arro3, batches": lambda table: arro3.core.RecordBatchReader.from_arrow(table),
    "nanoarrow": lambda table: nanoarrow.Array(table.to_struct_array().combine_chunks()),
    "nanoarrow, stream": lambda table: nanoarrow.ArrayStream(table),
}


@pytest.mark.parametrize("library", LIBRARIES)
def test_every_librarys_tables_go_in(worker: molt_accel.Client, library: str) -> None:
    rows = [{"number": n, "text": f"row {n}", "day": dt.date(2026, 1, 1)} for n in range(500)]
    rows.append({"number": None, "text": None, "day": None})
    schema = pa.schema([("number", pa.int64()), ("text", pa.string()), ("day", pa.date32())])
    table = pa.Table.from_pylist(rows, schema)
    make = LIBRARIES[library]
    for name, sent in (("put", {}), ("sent", {"sent": make(table)})):
        if not sent:
            worker.put(name, make(table))
        with worker.query(f"select number, text, cast(day as date) as day from {name}", tables=sent) as answer:
            back = answer.to_pyarrow()
        # pandas has no integer that may be missing; others have views in place of strings.
        assert back.cast(schema).to_pylist() == rows, library


class Altered:
    """A batch whose column is said to be of another type: the letters of one that nobody knows."""

    def __init__(self, batch: pa.RecordBatch, place: list[int], kind: bytes) -> None:
        self.batch, self.place, self.kind = batch, place, ctypes.create_string_buffer(kind)

    def __arrow_c_array__(self, requested_schema: object = None) -> tuple[object, object]:
        schema, array = self.batch.__arrow_c_array__()
        pointer = ctypes.pythonapi.PyCapsule_GetPointer
        pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
        words = (ctypes.c_void_p * 9).from_address(pointer(schema, b"arrow_schema"))
        for number in self.place:  # word 5: the children; word 0: the type's letters
            child = ctypes.cast(words[5], ctypes.POINTER(ctypes.c_void_p))[number]
            words = (ctypes.c_void_p * 9).from_address(child)
        words[0] = ctypes.addressof(self.kind)
        return schema, array


def nested_lists(levels: int) -> pa.Array:
    array = pa.array([1])
    for _ in range(levels):
        array = pa.ListArray.from_arrays(pa.array([0, 1], pa.int32()), array)
    return array


def twice(make: Callable[[pa.Array], pa.Array]) -> pa.Array:
    return make(make(pa.array(["a", "a", "b"])))


REFUSED: dict[str, tuple[pa.Array, str]] = {
    "dictionary of a dictionary": (
        twice(lambda values: pa.DictionaryArray.from_arrays(pa.array(range(len(values)), pa.int8()), values)),
        r"Dictionary\(Int8, Dictionary\(Int8, Utf8\)\)",
    ),
    "such a one in a struct": (
        pa.StructArray.from_arrays(
            [twice(lambda values: pa.DictionaryArray.from_arrays(pa.array(range(len(values)), pa.int8()), values))],
            names=["inner"],
        ),
        "dictionary of a dictionary",
    ),
    "runs of runs": (
        twice(
            lambda values: pa.RunEndEncodedArray.from_arrays(pa.array(range(1, len(values) + 1), pa.int32()), values)
        ),
        "runs of runs",
    ),
    "sixty lists in each other": (nested_lists(60), "nested 61 deep, at most 56"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_type_that_cannot_be_carried_is_refused_by_name(worker: molt_accel.Client, what: str) -> None:
    array, kind = REFUSED[what]
    table = pa.table({"fine": [1] * len(array), "c": array})
    worker.put("t", pa.table({"there": [1]}))
    for refused in (
        lambda: worker.put("t", table),
        lambda: worker.query("select fine from t", tables={"t": table}),
        lambda: worker.call("echo", table, codec="arrow"),
    ):
        with pytest.raises(
            molt_accel.MoltInvalidInput, match=rf'column "c" cannot be carried: .*{kind}.*hint: '
        ) as raised:
            refused()
        assert '"fine"' not in str(raised.value)
    assert worker.table("t").schema.names == ["there"], "nothing was changed"


def test_what_is_just_not_too_deep_is_carried(worker: molt_accel.Client) -> None:
    table = pa.table({"c": nested_lists(55)})
    worker.put("t", table)
    with worker.table("t") as read, worker.query("select * from t") as answer:
        assert same(read.to_pyarrow(), table) and same(answer.to_pyarrow(), table)


@pytest.mark.parametrize(
    ("kind", "place", "path"),
    [(pa.int8(), [1], "c"), (pa.list_(pa.int8()), [1, 0], "c.item"), (pa.struct([("x", pa.int8())]), [1, 0], "c.x")],
    ids=["itself", "in a list", "in a struct"],
)
def test_a_type_that_nobody_knows_is_refused_by_name(
    worker: molt_accel.Client, kind: pa.DataType, place: list[int], path: str
) -> None:
    """What a later version of Arrow may bring."""
    batch = pa.record_batch({"fine": pa.array([1]), "c": pa.array([None], kind)})
    with pytest.raises(
        molt_accel.MoltInvalidInput, match=rf'column "{path}" cannot be carried: .*"vX" is not known.*hint: '
    ):
        worker.put("t", Altered(batch, place, b"vX"))
