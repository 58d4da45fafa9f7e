"""Tables that stay on disk, folders of Parquet, how far a load is, and SQL that needs more memory than it may have."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq
import pytest

import molt_accel
from conftest import BARE, MEMFD, attached, until

ROWS = 8_000_000
BIG = ROWS * 8
"""Bytes of the table's one wide column once it is decoded: far more than the worker may take for it."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("disk")
    lines = folder / "lines"
    lines.mkdir()
    step = 1_000_000
    schema = pa.schema({"id": pa.int64(), "region": pa.string(), "amount": pa.int64()})
    base = pa.array(range(step), pa.int64())
    regions = pa.array(["north", "east", "south", "west"] * (step // 4))
    amounts = pa.array([1, 2, 3, 4] * (step // 4), pa.int64())
    for part in range(4):
        with pq.ParquetWriter(lines / f"part-{part}.parquet", schema) as writer:
            for start in range(part * ROWS // 4, (part + 1) * ROWS // 4, step):
                batch = pa.record_batch([pa.compute.add(base, start), regions, amounts], schema=schema)
                writer.write_batch(batch, row_group_size=step // 4)
    (folder / "zones.csv").write_text("name,zone\nnorth,N\neast,E\n")
    exports = {
        "abi_version": 1,
        "tables": {"lines": {"path": "lines", "resident": False}, "zones": {"path": "zones.csv"}},
        "exports": [
            {
                "name": "by_zone",
                "kind": "sql",
                "sql": "select zone, count(*) as n, sum(amount) as total from lines join zones on region = name"
                " where id >= $first and id < $first + $count group by zone order by zone",
                "params": {"first": "int64", "count": "int64"},
            }
        ],
    }
    (folder / "exports.json").write_text(json.dumps(exports))
    return folder


@pytest.fixture(scope="module")
def disk(folder: Path) -> Iterator[molt_accel.SpawnedClient]:
    with molt_accel.spawn(folder / "exports.json", arena="32MiB", threads=2, memfd=MEMFD) as spawned:
        yield spawned


def peak(client: molt_accel.SpawnedClient) -> int:
    """Most memory that the worker ever had, shared memory left out."""
    status = Path(f"/proc/{client.worker.pid}/status").read_text()
    fields = dict(line.split(":", 1) for line in status.splitlines())
    return int(fields["VmHWM"].split()[0]) * 1024


def test_a_table_larger_than_the_memory_that_it_takes_is_streamed(disk: molt_accel.SpawnedClient) -> None:
    sql = "select count(*) as n, sum(amount) as total, max(id) as top from lines where id % 2 >= 0"
    before = peak(disk)
    (row,) = disk.query(sql, timeout=120).to_pyarrow().to_pylist()
    assert row == {"n": ROWS, "total": ROWS // 4 * 10, "top": ROWS - 1}
    assert peak(disk) - before < BIG // 2, "the column alone has twice as many bytes"
    assert disk.stats()["arena"]["used_bytes"] < 1 << 20


def test_it_is_listed_with_where_it_lies(disk: molt_accel.SpawnedClient, folder: Path) -> None:
    lines, zones = disk.tables()
    files = list((folder / "lines").iterdir())
    assert (lines.name, lines.rows, lines.resident) == ("lines", ROWS, False)
    assert lines.bytes == sum(file.stat().st_size for file in files)
    assert lines.source == str(folder / "lines") and lines.readers == {}
    assert [name for name, _ in lines.schema] == ["id", "region", "amount"]
    assert zones.resident and "on disk" in repr(lines) and "on disk" not in repr(zones)
    with pytest.raises(molt_accel.MoltInvalidInput, match="stays on disk") as raised:
        disk.table("lines")
    assert raised.value.status == 409


def test_it_joins_resident_tables_and_those_of_the_request(disk: molt_accel.SpawnedClient) -> None:
    for first, count in ((0, 8), (ROWS - 4, 4), (3_000_000, 1000)):
        asked = {"first": first, "count": count}
        expected = [{"zone": zone, "n": count // 4, "total": count // 4 * each} for zone, each in (("E", 2), ("N", 1))]
        assert disk.call("by_zone", params=asked) == expected
    wanted = pa.table({"id": pa.array([3, 2_345_678], pa.int64())})
    sql = "select lines.id, region from lines join wanted on lines.id = wanted.id order by 1"
    rows = disk.query(sql, tables={"wanted": wanted}, timeout=120).to_pyarrow().to_pylist()
    assert rows == [{"id": 3, "region": "west"}, {"id": 2_345_678, "region": "south"}]


def test_files_may_be_loaded_as_either_and_a_changed_one_is_named(
    disk: molt_accel.SpawnedClient, tmp_path: Path
) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"n": [1, 2, 3]}), path)
    info = disk.load("t", path, resident=False)
    assert (info.rows, info.resident) == (3, False)
    sql = "select sum(n) as s from t"
    assert disk.query(sql).to_pyarrow()["s"].to_pylist() == [6]
    pq.write_table(pa.table({"n": [10, 20, 30, 40]}), path)
    with pytest.raises(molt_accel.MoltInternalError, match=r"t\.parquet: it is another file .* hint: load"):
        disk.query(sql)
    disk.load("t", path, resident=False)
    assert disk.query(sql).to_pyarrow()["s"].to_pylist() == [100]
    assert disk.load("t", path).resident
    path.unlink()
    assert disk.query(sql).to_pyarrow()["s"].to_pylist() == [100]
    with pytest.raises(molt_accel.MoltInvalidInput, match=r"\.parquet file, or a folder"):
        disk.load("t", tmp_path / "t.csv", resident=False)
    assert disk.drop("t")


def csv(path: Path, rows: int) -> None:
    path.write_text("a,b\n" + "".join(f"{n},{n % 7}\n" for n in range(rows)))


def wordy(path: Path, rows: int) -> None:
    """A file that takes long to read, and a table that is small: its column has a long name in every row."""
    line = json.dumps({"a column with a long name, " * 12: 1}) + "\n"
    with path.open("w") as file:
        for _ in range(rows // 10_000):
            file.write(line * 10_000)


def on_the_way(seen: list[molt_accel.LoadProgress], rows: int) -> list[molt_accel.LoadProgress]:
    return [now for now in seen if now.state == "reading" and 0 < now.rows < rows]


def test_a_load_tells_how_far_it_is(disk: molt_accel.SpawnedClient, tmp_path: Path) -> None:
    path = tmp_path / "big.jsonl"
    for rows in (300_000, 1_200_000, 2_400_000):  # where one was read before it was asked about twice, the next is not
        wordy(path, rows)
        seen: list[molt_accel.LoadProgress] = []
        info = disk.load("big", path, progress=seen.append)
        assert info.rows == rows
        assert [now.state for now in seen] == sorted(
            (now.state for now in seen), key=["reading", "placing", "done"].index
        )
        assert (seen[-1].state, seen[-1].rows) == ("done", rows)
        for one, two in pairwise(seen):
            assert one.rows <= two.rows and one.bytes <= two.bytes and one.elapsed <= two.elapsed + 0.5
        assert all(now.total_bytes in (0, path.stat().st_size) for now in seen)
        disk.drop("big")
        told = on_the_way(seen, rows)
        assert all(0 < now.bytes <= now.total_bytes for now in told)
        if len({now.rows for now in told}) >= 2:
            break
    else:
        pytest.fail(f"a load of {rows} rows told of nothing on its way: {seen}")


async def test_a_load_tells_an_event_loop_too(disk: molt_accel.SpawnedClient, tmp_path: Path) -> None:
    path = tmp_path / "big.jsonl"
    async with attached(disk) as own:
        for rows in (300_000, 1_200_000, 2_400_000):  # where one was read before it was asked about, the next is not
            wordy(path, rows)
            seen: list[molt_accel.LoadProgress] = []
            info = await own.aload("big", path, progress=seen.append)
            await own.adrop("big")
            assert (seen[-1].state, seen[-1].rows, info.rows) == ("done", rows, rows)
            if on_the_way(seen, info.rows):
                break
        else:
            pytest.fail(f"a load of {rows} rows told of nothing on its way: {seen}")


def test_a_load_whose_time_is_up_ends_and_changes_nothing(disk: molt_accel.SpawnedClient, tmp_path: Path) -> None:
    path = tmp_path / "big.csv"
    csv(path, 1_000_000)
    with pytest.raises(molt_accel.MoltTimeout):
        disk.load("late", path, timeout=0.001)
    until(lambda: disk.ping() and all(info.name != "late" for info in disk.tables()), "no table")
    assert disk.load("late", path).rows == 1_000_000
    assert disk.drop("late")


def spilled(base: Path) -> list[Path]:
    (home,) = base.iterdir()
    return [folder for folder in home.iterdir() if folder.is_dir()]


def test_more_than_memory_is_spilled_to_a_private_folder(tmp_path: Path) -> None:
    flags = ["--sql-memory", "12MiB", "--spill-dir", str(tmp_path)]
    table = pa.table({"a": pa.array([(n * 7919) % 1_000_003 for n in range(1_000_000)], pa.int64())})
    with molt_accel.spawn(BARE, arena="64MiB", threads=1, args=flags) as client:
        (folder,) = spilled(tmp_path)
        for path in (folder, folder.parent):
            assert stat.S_IMODE(path.stat().st_mode) == 0o700
        answer = client.query("select a from t order by a", tables={"t": table}, timeout=120).to_pyarrow()
        assert answer["a"].to_pylist() == sorted(table["a"].to_pylist())
        until(lambda: sum(len(files) for _, _, files in os.walk(folder)) == 1, "the lock alone is left")
        del answer
    assert spilled(tmp_path) == [], "it goes with its worker"
    with molt_accel.spawn(BARE, arena="64MiB", threads=1, args=[*flags, "--spill", "0"]) as client:
        with pytest.raises(
            molt_accel.MoltInternalError, match="memory for SQL is used up, 11324619 bytes.*--sql-memory"
        ) as raised:
            client.query("select a from t order by a", tables={"t": table}, timeout=120)
        assert raised.value.details == {"limit": "memory", "most": 11324619}
        assert client.query("select count(*) as n from t", tables={"t": table}).to_pyarrow()["n"].to_pylist() == [10**6]


def test_the_next_worker_clears_away_what_a_killed_one_had_spilled(tmp_path: Path) -> None:
    with molt_accel.spawn(BARE, arena="32MiB", threads=1, args=["--spill-dir", str(tmp_path)]) as client:
        (left,) = spilled(tmp_path)
        (left / "spilled").write_bytes(b"rows")
        client.worker.kill()
        client.worker.wait()
    assert left.exists(), "nobody was there to remove it"
    with molt_accel.spawn(BARE, arena="32MiB", threads=1, args=["--spill-dir", str(tmp_path)]):
        (own,) = spilled(tmp_path)
        assert own != left
