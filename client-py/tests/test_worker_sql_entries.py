"""SQL entries as their callers see them: plans that are kept, limits with numbers, forms of an answer, no body at all."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import molt_accel
from conftest import MEMFD
from molt_accel import codecs

ORDERS = pa.table({"region": ["north", "south", "north"], "amount": [10.0, 20.0, 5.5]})
TOTALS = "select region, sum(amount) as total from orders where amount > $min group by region order by region"
ZONES = "select name, size from zones order by name"


def entry(name: str, sql: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "kind": "sql", "sql": sql, **more}


PRICED = (
    "select o.region, sum(o.amount * r.rate) as total from orders o join rates r using (region) group by 1 order by 1"
)
EXPORTS = [
    entry("priced", PRICED, input=["orders", "rates"]),
    entry("totals", TOTALS, input="orders", params={"min": "float64"}),
    entry("totals_columns", TOTALS, input="orders", params={"min": "float64"}, output="columns"),
    entry("zones", ZONES),
    entry("zones_columns", ZONES, output="columns"),
    entry("one_zone", ZONES, max_rows=1),
    entry("sorted", "select n from t order by n desc", input="t", max_memory="64KiB"),
    entry("wrong", "select region,\n       amuont from orders", input="orders"),
]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[molt_accel.SpawnedClient]:
    folder: Path = tmp_path_factory.mktemp("entries")
    (folder / "zones.csv").write_text("name,size\neast,7\nwest,9\n")
    manifest = {"abi_version": 1, "tables": {"zones": {"path": "zones.csv"}}, "exports": EXPORTS}
    (folder / "exports.json").write_text(json.dumps(manifest))
    with molt_accel.spawn(folder / "exports.json", arena="32MiB", threads=2, memfd=MEMFD) as spawned:
        yield spawned


def test_the_planner_runs_once_for_an_entry_and_each_time_for_a_query(client: molt_accel.SpawnedClient) -> None:
    block = client.place(ORDERS)
    plans, totals = [], []
    for least in (0.0, 7.0, 15.0):
        answer = client.exchange("totals", block, codecs.ARROW, codecs.JSON, params={"min": least})
        plans.append(answer.metrics.plans)
        totals.append(json.loads(answer.body))
    block.free()
    assert plans == [1, 0, 0], "new values need no new plan"
    assert [len(rows) for rows in totals] == [2, 2, 1]
    other = ORDERS.append_column("day", pa.array([1, 2, 3]))
    block = client.place(other)
    for expected in (1, 0):
        answer = client.exchange("totals", block, codecs.ARROW, codecs.JSON, params={"min": 0.0})
        assert answer.metrics.plans == expected, "other columns are another plan"
    block.free()
    for _ in range(2):
        assert client.query("select count(*) from t", tables={"t": ORDERS}).metrics.plans == 1
    assert client.exchange("echo", b"x", codecs.RAW, codecs.RAW).metrics.plans == 0


@pytest.mark.parametrize("codec", ["json", "msgpack"])
def test_an_answer_is_rows_or_columns(client: molt_accel.SpawnedClient, codec: str) -> None:
    rows = ORDERS.to_pylist()
    asked = {"orders": rows, "min": 7}
    assert client.call("totals", asked, codec) == [
        {"region": "north", "total": 10.0},
        {"region": "south", "total": 20.0},
    ]
    assert client.call("totals_columns", asked, codec) == {"region": ["north", "south"], "total": [10.0, 20.0]}
    assert client.call("totals_columns", {"orders": rows, "min": 99}, codec) == {"region": [], "total": []}


def test_an_entry_without_inputs_needs_no_body(client: molt_accel.SpawnedClient) -> None:
    columns = {"name": ["east", "west"], "size": [7, 9]}
    for codec in ("json", "msgpack"):
        assert client.call("zones_columns", codec=codec) == columns
    assert client.call("zones", codec="arrow").to_pyarrow().to_pydict() == columns
    for number in (codecs.JSON, codecs.MSGPACK):
        answer = client.exchange("zones_columns", b"", number, number)
        assert codecs.decode(number, answer.body) == columns
    with pytest.raises(molt_accel.MoltInvalidInput, match='input "orders" is missing'):
        client.call("totals", params={"min": 1.0})


async def test_no_body_from_an_event_loop(client: molt_accel.SpawnedClient) -> None:
    async with molt_accel.attach(client.shm, socket=client.socket) as own:
        assert (await own.acall("zones", codec="arrow")).num_rows == 2
        assert len(await own.acall("zones", codec="json")) == 2


def test_limits_are_errors_with_numbers_and_the_next_call_works(client: molt_accel.SpawnedClient) -> None:
    for _ in range(2):
        with pytest.raises(molt_accel.MoltInternalError, match="more than 1 rows") as raised:
            client.call("one_zone")
        assert raised.value.details == {"limit": "rows", "most": 1}
    many = pa.table({"n": pa.array(range(100_000), pa.int64())})
    for _ in range(2):
        with pytest.raises(molt_accel.MoltInternalError, match="65536 bytes of the entry's max_memory") as raised:
            client.call("sorted", many, "arrow")
        details = raised.value.details
        assert (details["limit"], details["most"]) == ("memory", 65536) and details["asked"] > 0
    few = many.slice(0, 50)
    assert client.call("sorted", few, "arrow").to_pyarrow()["n"].to_pylist() == list(range(49, -1, -1))
    assert client.query("select max(n) as top from t", tables={"t": many}).to_pyarrow()["top"].to_pylist() == [99_999]


def test_an_error_names_entry_place_and_columns(client: molt_accel.SpawnedClient) -> None:
    with pytest.raises(molt_accel.MoltInvalidInput) as raised:
        client.call("wrong", ORDERS, "arrow")
    for part in ('entry "wrong"', 'no column "amuont" at line 2, column 8', '"region", "amount"'):
        assert part in str(raised.value)


@pytest.mark.parametrize("codec", ["json", "msgpack"])
def test_an_entry_takes_two_tables_as_rows(client: molt_accel.SpawnedClient, codec: str) -> None:
    rates = [{"region": "north", "rate": 2.0}, {"region": "south", "rate": 0.5}, {"region": "nowhere", "rate": 9.0}]
    body = {"orders": ORDERS.to_pylist(), "rates": rates}
    expected = [{"region": "north", "total": 31.0}, {"region": "south", "total": 10.0}]
    assert client.call("priced", body, codec=codec) == expected
    assert client.call("priced", {**body, "rates": rates[:1]}, codec=codec) == expected[:1]
    for missing in ("orders", "rates"):
        with pytest.raises(molt_accel.MoltInvalidInput, match=f"priced.*{missing}"):
            client.call("priced", {name: rows for name, rows in body.items() if name != missing}, codec=codec)


def test_the_worker_starts_with_tables_of_every_kind_of_file(tmp_path: Path) -> None:
    zones = pa.table({"name": ["east", "west"], "size": [7, 9]})
    (tmp_path / "rows.csv").write_text("name,size\neast,7\nwest,9\n")
    (tmp_path / "lines.jsonl").write_text("".join(json.dumps(row) + "\n" for row in zones.to_pylist()))
    pq.write_table(zones, tmp_path / "one.parquet")
    (tmp_path / "folder").mkdir()
    for part in range(2):
        pq.write_table(zones.slice(part, 1), tmp_path / "folder" / f"{part}.parquet")
    with pa.OSFile(str(tmp_path / "file.arrow"), "wb") as sink, pa.ipc.new_file(sink, zones.schema) as writer:
        writer.write_table(zones)
    with pa.OSFile(str(tmp_path / "stream.arrow"), "wb") as sink, pa.ipc.new_stream(sink, zones.schema) as writer:
        writer.write_table(zones)
    files = ["rows.csv", "lines.jsonl", "one.parquet", "folder", "file.arrow", "stream.arrow"]
    names = {file.split(".")[0]: file for file in files}
    manifest = {
        "abi_version": 1,
        "tables": {name: {"path": file} for name, file in names.items()},
        "exports": [entry(f"of_{name}", f"select name, size from {name} order by name") for name in names],
    }
    (tmp_path / "exports.json").write_text(json.dumps(manifest))
    with molt_accel.spawn(tmp_path / "exports.json", arena="32MiB", threads=2, memfd=MEMFD) as own:
        listed = {info.name: info for info in own.tables()}
        assert listed.keys() == names.keys()
        for name, file in names.items():
            info = listed[name]
            assert (info.rows, info.resident, info.readers) == (2, True, {}) and info.source is not None
            assert info.source.endswith(file)
            assert own.call(f"of_{name}", {}) == zones.to_pylist()
            with own.table(name) as table:
                assert table.to_pyarrow().to_pylist() == zones.to_pylist(), "in shared memory, for every process"
