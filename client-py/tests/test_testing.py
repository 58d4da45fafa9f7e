"""`molt_accel.testing`, as a project's own tests use it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from django.conf import settings as django_settings
from django.test import Client

from molt_accel import MoltInvalidInput, MoltUnknownEntry, testing
from molt_accel.django import client, clients

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
        assert client().call("double", pa.table({"x": [1, 2]}), codec="arrow").to_pydict() == {"x": [2, 4]}


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
