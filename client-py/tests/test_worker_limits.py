"""Tables and results that do not fit: an error with the numbers, nothing leaked, the next call works."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import molt_accel
from conftest import until

ARENA = 32 << 20


def numbers(mib: int) -> pa.Table:
    return pa.table({"n": pa.array(range(mib << 17), pa.int64())})


def used(client: molt_accel.Client) -> int:
    return int(client.stats()["arena"]["used_bytes"])


@pytest.fixture
def empty(client: molt_accel.SpawnedClient) -> Iterator[molt_accel.SpawnedClient]:
    for info in client.tables():
        client.drop(info.name)
    until(lambda: client.ping() and used(client) == 0, "an empty arena")
    yield client
    for info in client.tables():
        client.drop(info.name)


def refused(client: molt_accel.Client, call: Callable[[], object], kinds: tuple[type[Exception], ...]) -> str:
    """The message of a call that has no room; the arena is what it was before, and the next call works."""
    before = used(client)
    with pytest.raises(kinds) as raised:
        call()
    message = str(raised.value)
    assert re.search(r"\d{6,}", message.replace(",", "")), f"no numbers in {message!r}"
    until(lambda: client.ping() and used(client) == before, "what it was before")
    assert client.call("echo", {"still": "there"}) == {"still": "there"}
    return message


NO_ROOM = (molt_accel.MoltBusy, molt_accel.MoltTooLarge)


def test_a_table_larger_than_the_arena(empty: molt_accel.SpawnedClient, tmp_path: Path) -> None:
    big = numbers(40)
    empty.put("t", numbers(1))
    for _ in range(3):
        refused(empty, lambda: empty.put("t", big), NO_ROOM)
        refused(empty, lambda: empty.query("select count(*) from big", tables={"big": big}), NO_ROOM)
    pq.write_table(big, tmp_path / "big.parquet")
    message = refused(empty, lambda: empty.load("t", tmp_path / "big.parquet"), NO_ROOM)
    assert 'table "t"' in message
    assert empty.table("t").num_rows == 1 << 17, "a put without room changes nothing"
    assert empty.load("t", tmp_path / "big.parquet", resident=False).rows == 40 << 17, "which needs no room"


def test_a_result_larger_than_what_is_free(empty: molt_accel.SpawnedClient) -> None:
    empty.put("t", numbers(12))
    sql = "select n, n + 1 as m, n + 2 as o from t"
    for _ in range(3):
        message = refused(empty, lambda: empty.query(sql), (molt_accel.MoltInternalError,))
        assert "no room for its answer" in message
    assert empty.query(sql + " limit 5").num_rows == 5
    assert empty.query("select max(n) as top from t").to_pyarrow()["top"].to_pylist() == [(12 << 17) - 1]


def test_a_put_while_readers_hold_everything(empty: molt_accel.SpawnedClient) -> None:
    held = []
    for version in range(3):
        empty.put("t", numbers(8).slice(version))
        held.append(empty.table("t"))
    refused(empty, lambda: empty.put("t", numbers(8)), NO_ROOM)
    current, *old = empty.tables()
    assert not current.retired and [info.retired for info in old] == [True, True]
    for info in (current, *old):
        assert info.readers == {os.getpid(): 1} and info.age >= 0.0, "who holds it, and since when it is there"
        assert info.bytes >= 8 << 20
    assert [table.num_rows for table in held] == [(8 << 20 >> 3) - version for version in range(3)]
    held.pop(0).close()
    until(lambda: empty.ping() and len(empty.tables()) == 2, "the oldest version is gone")
    assert empty.put("t", numbers(8)).rows == 1 << 20, "what one reader let go of is room for the next version"
    assert ARENA > used(empty) > 3 * (8 << 20)
