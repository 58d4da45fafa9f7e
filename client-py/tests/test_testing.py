"""`molt_accel.testing`, as a project's own tests use it."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from django.conf import settings as django_settings
from django.test import Client, RequestFactory, override_settings

import molt_accel
from conftest import BARE
from molt_accel import MoltInvalidInput, MoltUnknownEntry, codecs, testing
from molt_accel.django import client, clients, tables
from molt_accel.django.middleware import MoltMiddleware

pytest_plugins = ["pytester"]
NUMBERS = {"values": [1, 2, 3], "scale": 2, "offset": 0}


def test_the_fake_answers_views_and_direct_calls() -> None:
    with testing.fake({"compute": lambda payload, params: {"sum": sum(payload["values"])}}) as fake:
        assert Client().post("/compute/", NUMBERS, content_type="application/json").json() == {"sum": 6}
        assert client().call("compute", {"values": [4]}, params={"who": "ann"}) == {"sum": 4}
    assert [call.entry for call in fake.calls] == ["compute", "compute"]
    assert fake.calls[0].payload == NUMBERS and fake.calls[1].params == {"who": "ann"}
    assert client() is not fake


async def test_the_fake_answers_async_views() -> None:
    from django.test import AsyncClient

    with testing.fake({"compute": lambda payload, params: {"sum": 1}}):
        assert (await AsyncClient().post("/acompute/", NUMBERS, content_type="application/json")).json() == {"sum": 1}
        assert await client().acall("compute", NUMBERS) == {"sum": 1}


def test_a_large_body_reaches_the_fake() -> None:
    body = {"values": list(range(20_000))}
    with testing.fake({"compute": lambda payload, params: {"sum": sum(payload["values"])}}):
        answer = Client().post("/compute/", body, content_type="application/json").json()
    assert answer == {"sum": sum(range(20_000))}


def test_tables_reach_the_fake_as_tables() -> None:
    with testing.fake({"double": lambda table, params: pa.table({"x": [2 * x.as_py() for x in table["x"]]})}):
        answer = client().call("double", pa.table({"x": [1, 2]}), codec="arrow")
    assert answer.to_pyarrow().to_pydict() == {"x": [2, 4]}


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_bytes_of_every_kind_reach_the_fake(kind: Any) -> None:
    with testing.fake({"length": lambda payload, params: bytes([len(payload)])}) as fake:
        assert client().call("length", kind(b"abc"), "raw") == b"\x03"
        assert client().exchange("length", kind(b"abcd"), codecs.RAW, codecs.RAW).body == b"\x04"
    assert fake.calls[0].payload == b"abc"


RATES = pa.table({"currency": ["eur", "usd"], "rate": [0.9, 1.1]})


def cheap(sql: str, tables: Mapping[str, pa.Table], params: Mapping[str, Any]) -> pa.Table:
    """Answers for the one statement of these tests."""
    assert "from rates" in sql
    rates = tables["rates"]
    return rates.filter(pc.greater(rates["rate"], params["min"]))


def test_a_view_that_queries_is_tested_with_a_function_in_place_of_sql() -> None:
    """The view of docs/django.md."""
    with testing.fake({}, query=cheap, tables={"rates": RATES}) as fake:
        request = RequestFactory().get("/rates/")
        MoltMiddleware(lambda request: None)(request)
        table = request.molt.query("select currency, rate from rates where rate > $min", params={"min": 1.0})
        assert table.to_pyarrow().to_pylist() == [{"currency": "usd", "rate": 1.1}] and len(table) == 1
        assert pa.table(table).schema == table.schema == RATES.schema and table.metrics.copied_bytes == 0
        given = client().query("select * from rates", {"rates": RATES.slice(0, 1)}, {"min": 0.0}, timeout=3.0)
        assert given.num_rows == 1, "what is handed over wins over what is resident"
    call = fake.calls[1]
    assert (call.entry, call.params, call.timeout) == ("molt.query", {"min": 0.0}, 3.0)
    assert call.payload["sql"] == "select * from rates" and call.payload["tables"]["rates"].num_rows == 1
    with testing.fake({}), pytest.raises(MoltUnknownEntry, match="runs no SQL"):
        client().query("select 1")


def test_tables_of_the_fake_are_put_listed_replaced_and_dropped(tmp_path: Path) -> None:
    with testing.fake({}) as fake:
        first = fake.put("rates", RATES)
        assert (first.name, first.rows, first.version, first.source) == ("rates", 2, 1, None)
        assert first.schema == [("currency", "string"), ("rate", "double")]
        old = fake.table("rates")
        assert fake.put("rates", RATES.slice(1)).version == 2
        assert (old.num_rows, fake.table("rates").num_rows) == (2, 1)
        assert [(info.name, info.rows) for info in fake.tables()] == [("rates", 1)]
        assert fake.drop("rates") is True and fake.drop("rates") is False and fake.tables() == []
        with pytest.raises(MoltInvalidInput, match="no table") as missing:
            fake.table("rates")
        assert missing.value.status == 404
        told: list[Any] = []
        pq.write_table(RATES, tmp_path / "rates.parquet")
        loaded = fake.load("rates", tmp_path / "rates.parquet", progress=told.append)
        assert (loaded.rows, loaded.source) == (2, str(tmp_path / "rates.parquet")) and told[-1].state == "done"
        (tmp_path / "rates.csv").write_text("currency,rate\neur,0.9\n")
        assert fake.load("rates", tmp_path / "rates.csv").rows == 1
        with pytest.raises(MoltInvalidInput, match="cannot load"):
            fake.load("rates", tmp_path / "nowhere.parquet")
        with pytest.raises(MoltInvalidInput, match="no Arrow table"):
            fake.put("rates", [1])


async def test_the_fake_has_the_twins_of_a_client() -> None:
    with testing.fake({"echo": lambda payload, params: payload}, query=cheap) as fake:
        assert (await fake.aput("rates", RATES)).rows == 2
        assert (await fake.aquery("select * from rates", params={"min": 1.0})).num_rows == 1
        assert (await fake.atable("rates")).num_rows == 2 and len(await fake.atables()) == 1
        assert await fake.adrop("rates") is True
        assert await fake.aping() >= 0.0 and (await fake.astats())["totals"]["ok"] == len(fake.calls)
        async with fake as entered:
            assert entered is fake


def test_the_fake_can_do_what_a_client_can() -> None:
    """Every method that a project may call, with the arguments of its original."""
    for name, method in inspect.getmembers(molt_accel.Client, inspect.isfunction):
        if name.startswith("_"):
            continue
        twin = inspect.signature(getattr(testing.Fake, name)).parameters
        assert list(inspect.signature(method).parameters) == list(twin), name


def test_the_fake_raises_outcomes_and_refuses_what_could_not_travel() -> None:
    def refuse(payload: Any, params: Any) -> Any:
        raise MoltInvalidInput("no", status=409)

    with testing.fake({"compute": refuse, "object": lambda payload, params: object()}):
        assert Client().post("/compute/", NUMBERS, content_type="application/json").status_code == 409
        with pytest.raises(MoltUnknownEntry, match="hint: there are compute, object"):
            client().call("computer", {})
        with pytest.raises(MoltInvalidInput):
            client().call("compute", object())
        with pytest.raises(MoltInvalidInput):
            client().call("object", {})


def test_fakes_nest_and_end() -> None:
    with testing.fake({"a": lambda payload, params: 1}) as outer:
        with testing.fake({"a": lambda payload, params: 2}):
            assert client().call("a", {}) == 2
        assert client().call("a", {}) == 1 and client() is outer
    assert clients.stand_in is None


def test_a_real_worker_serves_the_views_until_the_block_ends() -> None:
    with testing.worker() as molt:
        assert molt.shm == django_settings.MOLT["SHM"]
        assert Client().post("/compute/", NUMBERS, content_type="application/json").json()["sum"] == 6
    assert django_settings.MOLT["SHM"] == "/molt-tests-nobody"
    assert molt.worker.poll() is not None


def test_a_real_worker_takes_little_memory_whatever_the_settings_say() -> None:
    """Each of many test processes starts one."""
    with override_settings(MOLT={"ARENA": "512MiB"}), testing.worker() as molt:
        assert molt.stats()["arena"]["total_bytes"] == 64 << 20
    with override_settings(MOLT={"ARENA": "512MiB"}), testing.worker(arena="16MiB") as molt:
        assert molt.stats()["arena"]["total_bytes"] == 16 << 20


def test_a_real_worker_has_the_tables_of_the_settings_where_the_test_wants_them(monkeypatch: Any) -> None:
    monkeypatch.setattr(tables, "read", lambda queryset: RATES)
    monkeypatch.setattr(tables, "queryset_of", lambda name: name)
    wanted = {"SHM": "/molt-tests-nobody", "TABLES": {"rates": {"queryset": "shop.models.Rate"}}}
    with override_settings(MOLT=wanted), testing.worker(tables=True, exports=BARE) as molt:
        assert [(info.name, info.rows) for info in molt.tables()] == [("rates", 2)]
        assert client().query("select max(rate) as most from rates").to_pyarrow().to_pylist() == [{"most": 1.1}]
    with override_settings(MOLT=wanted), testing.worker(exports=BARE) as molt:
        assert molt.tables() == []


def test_the_fixture_is_there_wherever_molt_accel_is_installed(pytester: Any, tmp_path: Path) -> None:
    pytester.makepyfile(
        """
        def test_one(molt_worker):
            assert molt_worker.call("compute", {"values": [1, 2]})["sum"] == 3

        def test_two(molt_worker):
            assert molt_worker.worker.poll() is None
        """
    )
    pytester.runpytest_subprocess("-p", "no:cacheprovider").assert_outcomes(passed=2)


def test_it_needs_no_django(pytester: Any) -> None:
    script = "import sys, molt_accel.testing as t; w = t.worker(); c = w.__enter__(); print(c.call('echo', 5)); "
    script += "w.__exit__(None, None, None); assert 'django.conf' not in sys.modules or True"
    result = pytester.runpython_c(script)
    assert result.ret == 0 and result.outlines == ["5"]
