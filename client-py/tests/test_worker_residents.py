"""Resident tables: put once, read by every process in the same bytes, replaced and dropped under its readers."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import time
from pathlib import Path

import polars
import pyarrow as pa
import pyarrow.parquet
import pytest

import molt_accel
from conftest import BARE, until


def numbers(rows: int, start: int = 0) -> pa.Table:
    values = range(start, start + rows)
    return pa.table({"n": pa.array(values, pa.int64()), "text": pa.array([f"row {n}" for n in values])})


def used(client: molt_accel.Client) -> int:
    return client.stats()["arena"]["used_bytes"]


@pytest.fixture
def clean(client: molt_accel.SpawnedClient) -> molt_accel.SpawnedClient:
    for info in client.tables():
        client.drop(info.name)
    until(lambda: client.ping() and used(client) == 0, "an empty arena")
    return client


def test_a_table_is_put_once_and_read_where_it_was_written(clean: molt_accel.Client) -> None:
    table = numbers(100_000)
    before = clean.stats()["totals"]["copied_bytes"]
    info = clean.put("numbers", table)
    assert (info.name, info.rows, info.source, info.retired) == ("numbers", 100_000, None, False)
    assert info.schema == [("n", "Int64"), ("text", "Utf8")]
    extent = clean.stats()["arena"]["extent_bytes"] if "extent_bytes" in clean.stats()["arena"] else 1 << 20
    assert info.bytes <= used(clean) < info.bytes + 2 * extent, "one copy, and what one block rounds up"
    with clean.table("numbers") as one, clean.table("numbers") as two:
        assert one.address[0] == two.address[0], "the same bytes"
        assert one.to_pyarrow().equals(table)
    assert clean.stats()["totals"]["copied_bytes"] == before


def test_statements_name_it_and_join_it_with_the_requests_tables(clean: molt_accel.Client) -> None:
    clean.put("numbers", numbers(1000))
    other = pa.table({"n": pa.array([5, 7], pa.int64()), "weight": [0.5, 0.25]})
    sql = "select numbers.text, weight from numbers join other on numbers.n = other.n order by weight"
    answer = clean.query(sql, tables={"other": other}).to_pyarrow()
    assert answer.to_pydict() == {"text": ["row 7", "row 5"], "weight": [0.25, 0.5]}


@pytest.mark.parametrize("rows", [0, 1, 10])
def test_small_and_empty_tables_are_tables(clean: molt_accel.Client, rows: int) -> None:
    table = numbers(rows)
    clean.put("small", table)
    assert clean.table("small").to_pyarrow().equals(table)
    assert clean.query("select count(*) as c from small").to_pyarrow()["c"].to_pylist() == [rows]


def test_replacing_is_atomic_and_the_old_version_goes_with_its_last_reader(clean: molt_accel.Client) -> None:
    first, second = numbers(50_000), numbers(60_000, 7)
    one = clean.put("t", first)
    old = clean.table("t")
    two = clean.put("t", second)
    assert two.version > one.version
    assert clean.table("t").to_pyarrow().equals(second)
    listed = {info.version: info for info in clean.tables()}
    assert listed[one.version].retired and listed[one.version].readers == {os.getpid(): 1}
    assert not listed[two.version].retired
    assert old.to_pyarrow().equals(first), "unchanged under its reader"
    view = old.to_pyarrow()
    old.close()
    assert view.equals(first), "what was made of it keeps it"
    del view
    until(lambda: clean.ping() and [i.version for i in clean.tables()] == [two.version], "the old version is gone")
    assert used(clean) < two.bytes + (4 << 20)


def test_dropping_leaves_readers_alone(clean: molt_accel.Client) -> None:
    table = numbers(20_000)
    clean.put("t", table)
    kept = clean.table("t").to_pyarrow()
    assert clean.drop("t") is True
    assert clean.drop("t") is False
    with pytest.raises(molt_accel.MoltInvalidInput, match='there is no table "t"') as raised:
        clean.table("t")
    assert raised.value.status == 404
    assert kept.equals(table)
    del kept
    until(lambda: clean.ping() and used(clean) == 0, "an empty arena")


def test_files_are_loaded_by_the_worker(clean: molt_accel.Client, tmp_path: Path) -> None:
    table = numbers(3000)
    pyarrow.parquet.write_table(table, tmp_path / "numbers.parquet")
    info = clean.load("numbers", tmp_path / "numbers.parquet")
    assert info.rows == 3000 and info.source == str(tmp_path / "numbers.parquet")
    assert clean.table("numbers").to_pyarrow().cast(table.schema).equals(table)
    with pytest.raises(molt_accel.MoltInvalidInput, match="No such file"):
        clean.load("numbers", tmp_path / "missing.parquet")
    assert clean.table("numbers").num_rows == 3000, "a failed load changes nothing"


def test_any_arrow_library_goes_in(clean: molt_accel.Client) -> None:
    frame = polars.DataFrame({"a": [1, None, 3], "b": ["x", "y", None]})
    clean.put("frame", frame)
    assert clean.table("frame").to_polars().equals(frame)
    clean.put("batch", pa.record_batch({"a": [1, 2]}))
    assert clean.table("batch").num_rows == 2
    with pytest.raises(molt_accel.MoltInvalidInput, match="no Arrow table"):
        clean.put("nothing", [1, 2, 3])


@pytest.mark.parametrize("name", ["", "a.b", 'a"b', "a\0b", "x" * 201])
def test_names_that_sql_cannot_say_are_refused(clean: molt_accel.Client, name: str) -> None:
    with pytest.raises(molt_accel.MoltInvalidInput, match="cannot be a table's name"):
        clean.put(name, numbers(1))
    assert clean.tables() == []


def test_what_does_not_fit_is_refused_with_numbers_and_leaks_nothing(clean: molt_accel.Client) -> None:
    big = pa.table({"n": pa.array(range(1_200_000), pa.int64())})  # 9.6 MB of an arena of 32 MiB
    clean.put("a", big)
    clean.put("b", big)
    with pytest.raises((molt_accel.MoltBusy, molt_accel.MoltInternalError), match=r"\d+ bytes"):
        for name in "cdef":
            clean.put(name, big)
    names = [info.name for info in clean.tables()]
    assert names[:2] == ["a", "b"]
    assert clean.call("echo", {"still": "there"}) == {"still": "there"}
    for name in names:
        clean.drop(name)
    until(lambda: clean.ping() and used(clean) == 0, "an empty arena")
    clean.put("c", big)


def test_garbage_is_refused_and_its_bytes_come_back(clean: molt_accel.Client) -> None:
    clean.put("t", numbers(10))
    before = used(clean)
    for garbage in (b"", b"garbage" * 1000, b"\xff" * 300_000):
        with pytest.raises(molt_accel.MoltInvalidInput, match='table "t"'):
            clean.put("t", garbage)
    assert clean.table("t").num_rows == 10
    until(lambda: clean.ping() and used(clean) == before, "what it was before")


def _read(shm: str | None, socket: str | None, queue: multiprocessing.Queue[tuple[int, int, int]]) -> None:
    with molt_accel.attach(shm, socket=socket) as client:
        table = client.table("shared")
        arrow = table.to_pyarrow()
        queue.put((os.getpid(), arrow.num_rows, arrow["n"].to_pylist()[-1]))
        signal.pause()


def test_processes_share_the_bytes_and_a_killed_reader_is_forgotten(clean: molt_accel.SpawnedClient) -> None:
    clean.put("shared", numbers(200_000))
    before = used(clean)
    context = multiprocessing.get_context("spawn")
    queue: multiprocessing.Queue[tuple[int, int, int]] = context.Queue()
    readers = [context.Process(target=_read, args=(clean.shm, clean.socket, queue), daemon=True) for _ in range(3)]
    for reader in readers:
        reader.start()
    seen = [queue.get(timeout=60) for _ in readers]
    assert [row[1:] for row in seen] == [(200_000, 199_999)] * 3
    assert used(clean) == before, "no copy for anybody"
    (info,) = clean.tables()
    assert info.readers == {pid: 1 for pid, _, _ in seen}
    clean.drop("shared")
    for reader in readers:
        reader.kill()
        reader.join()
    until(
        lambda: clean.ping() and clean.tables() == [] and used(clean) == 0, "its bytes come back with the last reader"
    )


def test_a_reader_keeps_its_view_when_the_worker_dies(own: molt_accel.SpawnedClient) -> None:
    table = numbers(30_000)
    own.put("t", table)
    view = own.table("t").to_pyarrow()
    own.worker.kill()
    own.worker.wait()
    assert view.equals(table)
    own.close()
    assert view.equals(table)


def test_what_was_loaded_is_back_after_a_kill_and_what_was_put_is_said_to_be_lost(tmp_path: Path) -> None:
    file = tmp_path / "loaded.parquet"
    pyarrow.parquet.write_table(numbers(3000), file)
    with molt_accel.spawn(exports=BARE, arena="32MiB", threads=2, args=["--supervise"]) as own:
        loaded = own.load("loaded", file)
        own.put("put", numbers(10))
        view = own.table("put").to_pyarrow()
        dead = own.stats()["worker"]["pid"]
        os.kill(dead, signal.SIGKILL)
        # The first call waits for the next worker, which has loaded the file before it serves.
        assert own.query("select count(*) as n from loaded", timeout=30).to_pyarrow().to_pylist() == [{"n": 3000}]
        assert own.stats()["worker"]["pid"] != dead
        back, lost = own.tables()
        assert (back.name, back.rows, back.source, back.lost) == ("loaded", 3000, str(file), None)
        assert back.version > loaded.version
        assert (lost.name, lost.rows, lost.bytes, lost.readers) == ("put", 10, 0, {})
        assert lost.lost is not None and "a client had put it" in lost.lost and str(dead) in lost.lost
        assert ", lost" in repr(lost)
        with pytest.raises(molt_accel.MoltInvalidInput, match=r'"put" is lost.*hint: client\.put'):
            own.table("put")
        assert view.equals(numbers(10)), "what was read from the dead worker stays"
        assert own.put("put", numbers(20)).lost is None
        assert [info.lost for info in own.tables()] == [None, None]


def test_what_python_holds_is_seen_with_pid_bytes_and_age(clean: molt_accel.Client) -> None:
    table = numbers(50_000)
    size = clean.put("t", table).bytes

    def held() -> tuple[int, int, float | None]:
        (session,) = (one for one in clean.stats()["sessions"] if one["pid"] == os.getpid())
        return session["leases"], session["leased_bytes"], session["oldest_lease_s"]

    until(lambda: held()[0] == 0, "nothing is held")
    assert held() == (0, 0, None)
    began = time.monotonic()
    one, two = clean.table("t"), clean.table("t").to_pyarrow()
    until(lambda: held()[0] == 2, "two views are seen")
    assert held()[1] == size, "of a table with two views the bytes count once"
    answer = clean.query("select * from t")
    until(lambda: held()[0] == 3, "an answer that is held is seen")
    assert held()[1] > size + answer.nbytes / 2
    until(lambda: (held()[2] or 0) > 0.3, "it grows older")
    assert held()[2] <= time.monotonic() - began
    one.close()
    answer.close()
    until(lambda: held()[:2] == (1, size), "what was let go of is not counted")
    assert two.num_rows == 50_000
    del two
    until(lambda: held() == (0, 0, None), "nothing is held")


async def test_the_same_for_event_loops(clean: molt_accel.Client, tmp_path: Path) -> None:
    table = numbers(500)
    info = await clean.aput("t", table)
    assert info.rows == 500
    assert (await clean.atable("t")).to_pyarrow().equals(table)
    pyarrow.parquet.write_table(table, tmp_path / "t.parquet")
    assert (await clean.aload("u", tmp_path / "t.parquet")).rows == 500
    assert [info.name for info in await clean.atables()] == ["t", "u"]
    assert await clean.adrop("t") is True


def test_answers_say_how_old_the_tables_are_that_they_were_read_from(clean: molt_accel.Client) -> None:
    began = time.monotonic()
    clean.put("numbers", numbers(10))
    answered = time.monotonic()

    def ask() -> float:
        with clean.query("select n from numbers") as answer:
            assert answer.metrics.table_age is not None
            return answer.metrics.table_age

    until(lambda: ask() > 0.2, "it grows older")
    least, age, most = time.monotonic() - answered, ask(), time.monotonic() - began
    assert least - 0.001 <= age <= most + 0.1, (least, age, most)
    with clean.table("numbers") as view:
        assert view.metrics.table_age is not None and view.metrics.table_age >= age
    with clean.query("select n from numbers", tables={"numbers": numbers(1)}) as own:
        assert own.metrics.table_age is None, "the request's own table"


def test_its_age_counts_on_when_a_new_worker_takes_it_over(own: molt_accel.SpawnedClient) -> None:
    own.put("rates", pa.table({"a": [1]}))

    def age() -> float:
        (info,) = own.tables()
        return info.age

    until(lambda: age() > 0.5, "it grows older")
    before = age()
    with subprocess.Popen([*own.worker.args, "--replace"], stderr=subprocess.DEVNULL) as successor:
        try:
            until(lambda: own.stats()["worker"]["pid"] == successor.pid, "the next worker serves")
            assert age() > before
            with own.query("select a from rates") as answer:
                assert answer.metrics.table_age > before
            own.put("rates", pa.table({"a": [2]}))
            assert own.tables()[0].version > 1
        finally:
            successor.terminate()
