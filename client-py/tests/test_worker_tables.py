"""Tables: placed once, read in place, exact for the types that Arrow has, valid for as long as somebody looks."""

from __future__ import annotations

import datetime as dt
import gc
from decimal import Decimal
from typing import Any

import polars
import pyarrow as pa
import pytest

import molt_accel
from conftest import attached, until
from molt_accel import table as table_module
from molt_accel._lib import lib

Client = molt_accel.SpawnedClient
ROWS = pa.table({"region": ["n", "s", "n", None], "amount": [1.5, 2.0, 3.0, 4.0], "id": [1, 2, 3, 4]})


class OnlyStream:
    """Arrow data that is nothing but the stream protocol."""

    def __init__(self, table: Any) -> None:
        self.table = table

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self.table.__arrow_c_stream__(requested_schema)


class OnlyArray:
    """Arrow data that is nothing but the array protocol."""

    def __init__(self, batch: pa.RecordBatch) -> None:
        self.batch = batch

    def __arrow_c_array__(self, requested_schema: object = None) -> object:
        return self.batch.__arrow_c_array__(requested_schema)


def ipc(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


SOURCES = [
    ROWS,
    ROWS.to_batches()[0],
    OnlyStream(ROWS),
    OnlyArray(ROWS.to_batches()[0]),
    ipc(ROWS),
    polars.from_arrow(ROWS),
    ROWS.to_pandas(),
]


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: type(source).__name__)
def test_anything_arrow_can_be_queried(client: Client, source: Any) -> None:
    sql = "select region, sum(amount) as total from t where id < $most group by region order by region"
    with client.query(sql, tables={"t": source}, params={"most": 4}) as table:
        assert table.to_pyarrow().to_pydict() == {"region": ["n", "s"], "total": [4.5, 2.0]}


def test_two_tables_are_joined_by_name(client: Client) -> None:
    names = pa.table({"region": ["n", "s"], "name": ["north", "south"]})
    sql = "select name, count(*) as n from a join b on a.region = b.region group by name order by name"
    assert client.query(sql, tables={"a": ROWS, "b": names}).to_pyarrow().to_pylist() == [
        {"name": "north", "n": 2},
        {"name": "south", "n": 1},
    ]


async def test_a_query_from_an_event_loop(client: Client) -> None:
    table = await client.aquery("select max(id) as m from t", tables={"t": ROWS}, timeout=20.0)
    assert table.to_pyarrow().to_pydict() == {"m": [4]}


@pytest.mark.parametrize("source", SOURCES[:5], ids=lambda source: type(source).__name__)
async def test_a_call_takes_and_answers_arrow(client: Client, source: Any) -> None:
    for table in (client.call("echo", source, "arrow"), await client.acall("echo", source, codec="arrow")):
        assert table.to_pyarrow().to_pydict() == ROWS.to_pydict()


def test_nothing_is_copied_on_the_way_out(client: Client) -> None:
    table = client.query("select * from t", tables={"t": pa.table({"a": list(range(50_000))})})
    address, start, end = table.address
    assert start <= address < end
    for buffer in table.to_pyarrow().column("a").chunk(0).buffers():
        assert buffer is None or start <= buffer.address < end
    assert table.metrics.copied_bytes == 0 and table.metrics.exec_us >= 0


def test_what_a_table_says_of_itself(client: Client) -> None:
    table = client.query("select id, region from t", tables={"t": ROWS})
    assert (table.num_rows, len(table)) == (4, 4) and table.nbytes > 0
    assert table.schema.names == ["id", "region"]
    assert pa.schema(table).names == ["id", "region"]  # through __arrow_c_schema__
    assert table._columns() == [("id", "l"), ("region", "u")]
    assert repr(table).startswith("<molt_accel.Table 4 rows, ") and repr(table).endswith(" bytes: id, region>")
    assert table.to_pandas()["id"].tolist() == [1, 2, 3, 4]
    assert table.to_polars()["region"].to_list() == ["n", "s", "n", None]


def test_without_pyarrow_the_schema_is_names_and_formats(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    table = client.query("select id from t", tables={"t": ROWS})
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    assert table.schema == [("id", "l")]


def test_what_was_handed_out_outlives_table_and_client(client: Client) -> None:
    with attached(client) as other:
        table = other.query("select * from t", tables={"t": pa.table({"a": list(range(20_000))})})
        arrow, again = table.to_pyarrow(), table.to_pyarrow()
        capsule = table.__arrow_c_stream__()
        table.close()
        table.close()
    client.call("echo", bytes(4_000_000), "raw")
    assert arrow.equals(again) and arrow.column("a").to_pylist() == list(range(20_000))
    del capsule


def test_a_closed_table_says_so(client: Client) -> None:
    table = client.query("select 1 as a")
    with table:
        assert table.num_rows == 1
    for use in (lambda: table.num_rows, table.to_pyarrow, table.__arrow_c_schema__, lambda: table.address):
        with pytest.raises(molt_accel.MoltClosed, match="the table is closed"):
            use()
    with pytest.raises(ValueError):
        len(table)
    assert repr(table) == "<molt_accel.Table closed>"


def test_closing_a_table_does_not_pull_it_from_under_another_thread(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    freed = []
    make = table_module._freer

    def recording(generation: int) -> Any:
        free = make(generation)
        return lambda pointer: (freed.append(1), free(pointer))

    monkeypatch.setattr(table_module, "_freer", recording)
    table = client.query("select 1 as x")
    in_a_call = table._open()  # what a thread inside a call of the library holds
    table.close()
    assert not freed
    assert lib.molt_table_rows(in_a_call) == 1
    del in_a_call
    assert freed == [1]


def test_a_table_is_given_back_when_the_last_reader_is_gone(client: Client) -> None:
    def leases() -> int:
        return sum(session["leases"] for session in client.stats()["sessions"])

    until(lambda: leases() == 0, "earlier tests' tables are gone")
    table = client.query("select * from t", tables={"t": ROWS})
    arrow = table.to_pyarrow()
    del table
    gc.collect()
    until(lambda: leases() == 1, "the worker has counted the lease that pyarrow's table holds")
    for _ in range(100):
        client.call("echo", bytes(100_000), "raw")
    assert arrow.to_pylist() == ROWS.to_pylist()
    del arrow
    gc.collect()
    until(lambda: leases() == 0, "the lease ends")


TYPES = pa.table(
    {
        "i64": pa.array([-(2**63), 2**63 - 1, None]),
        "u64": pa.array([0, 2**64 - 1, None], pa.uint64()),
        "f64": pa.array([float("inf"), -0.0, None]),
        "dec": pa.array([Decimal("1.10"), Decimal("-99999999999999999999.99"), None], pa.decimal128(38, 2)),
        "utc": pa.array([dt.datetime(2026, 1, 1, tzinfo=dt.UTC)] * 2 + [None], pa.timestamp("us", "Europe/Berlin")),
        "date": pa.array([dt.date(1, 1, 1), dt.date(9999, 12, 31), None]),
        "text": pa.array(["", "Grüße \U0001f600", None]),
        "big": pa.array(["a", "b", None], pa.large_string()),
        "view": pa.array(["short", "a string longer than twelve bytes", None], pa.string_view()),
        "bytes": pa.array([b"", b"\x00", None]),
        "dict": pa.array(["x", "y", None]).dictionary_encode(),
        "list": pa.array([[1, 2], [], None]),
        "struct": pa.array([{"a": 1}, {"a": None}, None]),
        "null": pa.nulls(3),
        "bool": pa.array([True, False, None]),
    }
)


@pytest.mark.parametrize("name", TYPES.column_names)
def test_types_come_back_exact(client: Client, name: str) -> None:
    column = TYPES.select([name])
    assert client.call("echo", column, "arrow").to_pyarrow().equals(column)


@pytest.mark.parametrize("table", [TYPES.slice(1, 1), TYPES.slice(0, 0), pa.table({})], ids=["slice", "empty", "none"])
def test_slices_and_empty_tables(client: Client, table: pa.Table) -> None:
    back = client.call("echo", table, "arrow").to_pyarrow()
    assert back.schema.equals(table.schema) and back.to_pylist() == table.to_pylist()


@pytest.mark.parametrize("source", [5, [1, 2], {"a": [1]}, "text"])
def test_what_is_no_arrow_is_refused_with_a_hint(client: Client, source: object) -> None:
    with pytest.raises(molt_accel.MoltInvalidInput, match=r"no Arrow table\. hint: .*__arrow_c_stream__"):
        client.query("select 1", tables={"t": source})
    with pytest.raises(molt_accel.MoltInvalidInput, match="no Arrow table"):
        client.call("echo", source, "arrow")


@pytest.mark.parametrize("data", [b"", b"garbage", ipc(ROWS)[:100], ipc(ROWS)[:-300]])
def test_garbage_in_place_of_a_stream_is_refused(client: Client, data: bytes) -> None:
    with pytest.raises(molt_accel.MoltInvalidInput):
        client.query("select * from t", tables={"t": data})
    assert client.call("echo", 1) == 1


@pytest.mark.parametrize(
    ("sql", "words"),
    [
        ("select missing from t", "missing"),
        ("select * from nowhere", "nowhere"),
        ("selec 1", "selec"),
        ("drop table t", ""),
        ("create table x as select 1", ""),
        ("copy (select 1) to '/tmp/molt-should-not-exist.csv'", ""),
        ("select * from t where id < $least", "least"),
    ],
)
def test_wrong_sql_is_refused_and_names_the_trouble(client: Client, sql: str, words: str) -> None:
    with pytest.raises(molt_accel.MoltInvalidInput) as refused:
        client.query(sql, tables={"t": ROWS})
    assert words in str(refused.value).lower()
