"""Tables from the database: exact types, one moment's rows, kept fresh by the worker's command."""

from __future__ import annotations

import datetime as dt
import json
import os
import re
import secrets
import signal
import sqlite3
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from decimal import Decimal
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
from django.core.checks import run_checks
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import OperationalError, connection, connections
from django.test import override_settings
from site_shop.models import Customer, Order, by_customer, large_orders

import molt_accel
from conftest import until
from molt_accel.django import tables

ANN = uuid.UUID(int=1)
PLACED = dt.datetime(2026, 3, 29, 1, 30, 0, 123456, tzinfo=dt.timezone(dt.timedelta(hours=2)))
TABLES = {
    "orders": {"queryset": "site_shop.models.Order"},
    "large": {"queryset": "site_shop.models.large_orders", "refresh": 60},
    "broken": {"queryset": "site_shop.models.broken"},
}


@pytest.fixture(autouse=True)
def shop() -> Iterator[None]:
    with connection.schema_editor() as schema:
        schema.create_model(Customer)
        schema.create_model(Order)
    customer = Customer.objects.create(id=ANN, name="Ann")
    Order.objects.create(
        customer=customer,
        amount=Decimal("9999999999.99"),
        placed=PLACED,
        day=dt.date(2026, 3, 29),
        at=dt.time(1, 30, 0, 5),
        took=dt.timedelta(days=2, microseconds=7),
        paid=True,
        pieces=3,
        visits=2**60,
        weight=0.1,
        note="grüße",
        tags={"a": [1, None]},
        seal=b"\x00\xff",
        address="::1",
    )
    Order.objects.create(customer=customer, amount=Decimal("0.10"), placed=PLACED)
    yield
    with connection.schema_editor() as schema:
        schema.delete_model(Order)
        schema.delete_model(Customer)


@pytest.fixture
def configured(client: molt_accel.SpawnedClient) -> Iterator[molt_accel.SpawnedClient]:
    with override_settings(MOLT={"SHM": client.shm, "SOCKET": client.socket, "TABLES": TABLES}):
        yield client


def test_every_kind_of_field_keeps_its_value_and_gets_its_type() -> None:
    table = tables.read(Order.objects.all())
    types = {field.name: str(field.type) for field in table.schema}
    assert types == {
        "id": "int64",
        "customer_id": "string",
        "amount": "decimal128(12, 2)",
        "placed": "timestamp[us, tz=UTC]",
        "day": "date32[day]",
        "at": "time64[us]",
        "took": "duration[us]",
        "paid": "bool",
        "pieces": "int16",
        "visits": "int64",
        "weight": "double",
        "note": "string",
        "tags": "string",
        "seal": "binary",
        "address": "string",
    } | {"id": types["id"]}
    first, second = table.to_pylist()
    assert (first["amount"], second["amount"]) == (Decimal("9999999999.99"), Decimal("0.10"))
    assert first["placed"] == PLACED and first["took"] == dt.timedelta(days=2, microseconds=7)
    assert (first["customer_id"], first["note"], first["seal"]) == (str(ANN), "grüße", b"\x00\xff")
    assert (json.loads(first["tags"]), first["visits"], first["at"]) == ({"a": [1, None]}, 2**60, dt.time(1, 30, 0, 5))
    assert second["note"] is None and second["paid"] is None and second["tags"] is None


def test_filters_relations_and_aggregates() -> None:
    assert tables.read(large_orders()).num_rows == 1
    table = tables.read(by_customer())
    assert table.to_pylist() == [{"customer__name": "Ann", "orders": 2, "visits_all": 2**60}]
    assert tables.read(Order.objects.none()).num_rows == 0 and tables.read(Order.objects.none()).num_columns == 15


def test_many_rows_are_read_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "CHUNK_ROWS", 7)
    Order.objects.bulk_create(Order(customer_id=ANN, amount=Decimal(i), placed=PLACED, visits=i) for i in range(100))
    table = tables.read(Order.objects.all())
    assert table.num_rows == 102 and table.column("visits").num_chunks == 15
    assert table.column("visits").to_pylist()[2:] == list(range(100))


def test_refresh_publishes_them_for_sql_and_everybody(configured: molt_accel.SpawnedClient) -> None:
    info = tables.refresh(configured, "orders")
    assert (info.name, info.rows) == ("orders", 2)
    result = configured.query(
        "select sum(amount) as total from orders where placed >= $since", params={"since": PLACED}
    )
    assert result.to_pyarrow().to_pylist() == [{"total": Decimal("10000000000.09")}]
    Order.objects.all().delete()
    before = configured.table("orders")
    assert tables.refresh(configured, "orders").version > info.version
    assert (before.num_rows, configured.table("orders").num_rows) == (2, 0)


def test_the_command_refreshes_all_or_those_it_is_given(configured: molt_accel.SpawnedClient) -> None:
    out = StringIO()
    call_command("molt_tables", "refresh", "large", stdout=out)
    assert re.search(r"large +\d+ +1 ", out.getvalue()) and "orders" not in out.getvalue()
    with pytest.raises(CommandError, match=r"has no 'larg'. hint: there are orders, large, broken"):
        call_command("molt_tables", "refresh", "larg")


def test_a_queryset_that_fails_keeps_no_other_from_being_read(configured: molt_accel.SpawnedClient) -> None:
    configured.put("broken", pa.table({"x": [1]}))
    out, err = StringIO(), StringIO()
    first = {"broken": TABLES["broken"], **TABLES}
    with override_settings(MOLT={"SHM": configured.shm, "SOCKET": configured.socket, "TABLES": first}):
        with pytest.raises(CommandError, match="not refreshed: broken"):
            call_command("molt_tables", "refresh", stdout=out, stderr=err)
        assert err.getvalue() == (
            "broken is not refreshed, its last version stays: RuntimeError: the database is on fire\n"
        )
        assert re.search(r"^orders +\d+ +2 ", out.getvalue(), re.MULTILINE) and "large" in out.getvalue()
        assert configured.table("broken").to_pyarrow().to_pydict() == {"x": [1]}
        with pytest.raises(CommandError):
            call_command("molt_tables", "refresh", "broken", stdout=StringIO(), stderr=err, traceback=True)
        assert "Traceback" in err.getvalue() and "site_shop/models.py" in err.getvalue()


def test_a_failed_refresh_keeps_the_last_version_and_says_so(configured: molt_accel.SpawnedClient, caplog: Any) -> None:
    configured.put("broken", pa.table({"x": [1]}))
    looks = iter(range(2))
    tables.keep_fresh(configured, lambda: next(looks, None) is None, lambda seconds: None)
    assert configured.table("broken").to_pyarrow().to_pydict() == {"x": [1]}
    (record,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert "table broken is not refreshed, its last version stays" in record.getMessage()
    assert configured.table("orders").num_rows == 2 and configured.table("large").num_rows == 1


class Clock:
    """Time for `keep_fresh`, which passes when it pauses."""

    def __init__(self, seconds: float) -> None:
        self.now, self.end = 1000.0, 1000.0 + seconds

    def monotonic(self) -> float:
        return self.now

    def pause(self, seconds: float) -> None:
        self.now += seconds

    def is_over(self) -> bool:
        return self.now >= self.end


@pytest.mark.parametrize(
    ("every", "fails", "tried_at"),
    [
        (None, 3, [0, 1, 3, 7]),  # then it is there, and due no more
        (3600, 3, [0, 1, 3, 7, 3607]),
        (2, 4, [0, 1, 3, 5, 7, 9]),  # never later than its own interval
        (None, 99, [0, 1, 3, 7, 15, 31, 63, 123, 183]),
    ],
)
def test_a_read_that_failed_is_tried_again_soon_whatever_its_interval(
    monkeypatch: pytest.MonkeyPatch, every: int | None, fails: int, tried_at: list[int]
) -> None:
    clock = Clock(tried_at[-1] + 2 if every else 4000 if fails < 9 else 200)
    tries: list[int] = []

    def refresh(client: Any, name: str) -> Any:
        tries.append(int(clock.now - 1000))
        if len(tries) <= fails:
            raise OperationalError("the database is starting up")
        return SimpleNamespace(version=1, rows=1, bytes=1)

    monkeypatch.setattr(tables, "time", clock)
    monkeypatch.setattr(tables, "refresh", refresh)
    monkeypatch.setattr(tables, "_epoch", lambda client: 1)
    table = {"queryset": "site_shop.models.Order"} | ({"refresh": every} if every else {})
    with override_settings(MOLT={"SHM": "/molt-tests-nobody", "TABLES": {"orders": table}}):
        tables.keep_fresh(None, clock.is_over, clock.pause)  # type: ignore[arg-type]
    assert tries == tried_at


def test_a_connection_that_the_database_has_closed_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after a restart of the database, or its own time-out of idle connections."""
    database = connections.create_connection("default")
    database.settings_dict = {**database.settings_dict, "NAME": str(tmp_path / "shop.sqlite3"), "CONN_MAX_AGE": None}
    monkeypatch.setattr(connections, "all", lambda initialized_only=False: [database])
    results: list[Any] = []

    def refresh(client: Any, name: str) -> Any:
        with database.cursor() as cursor:
            results.append(cursor.execute("select 1").fetchone())
        return SimpleNamespace(version=1, rows=1, bytes=1)

    monkeypatch.setattr(tables, "refresh", refresh)
    assert tables._try(None, "orders")  # type: ignore[arg-type]
    database.connection.close()  # nobody has told Django
    monkeypatch.setattr(database, "is_usable", lambda: False)
    assert not tables._try(None, "orders"), "the first one finds out"  # type: ignore[arg-type]
    assert tables._try(None, "orders") and results == [(1,), (1,)]  # type: ignore[arg-type]
    database.close()


def test_what_was_never_read_is_listed_too(configured: molt_accel.SpawnedClient) -> None:
    for name in TABLES:
        configured.drop(name)
    tables.refresh(configured, "large")
    out = StringIO()
    call_command("molt_tables", stdout=out)
    assert re.search(r"^orders +(- +){5}NOT READ YET$", out.getvalue(), re.MULTILINE), out.getvalue()
    assert not re.search(r"^large .*NOT READ", out.getvalue(), re.MULTILINE)
    out = StringIO()
    call_command("molt_status", stdout=out)
    assert "orders (NOT READ YET), broken (NOT READ YET)" in out.getvalue()
    out = StringIO()
    call_command("molt_tables", "--json", stdout=out)
    assert {row["name"]: row["rows"] for row in json.loads(out.getvalue())} == {
        "large": 1,
        "orders": None,
        "broken": None,
    }


def test_the_commands_say_how_old_a_table_is_and_whether_it_is_late(configured: molt_accel.SpawnedClient) -> None:
    def shown(command: str) -> str:
        out = StringIO()
        call_command(command, stdout=out)
        return out.getvalue()

    began = time.monotonic()
    tables.refresh(configured, "large")
    (info,) = [table for table in configured.tables() if table.name == "large" and not table.retired]
    assert 0 <= info.age <= time.monotonic() - began
    until(lambda: _age(configured, "large") > info.age, "it grows older")
    assert re.search(r"large .* \d+ s +a client", shown("molt_tables")), shown("molt_tables")
    assert re.search(r"tables .*large \(1 rows, \d+ s\)", shown("molt_status")), shown("molt_status")
    often = {"large": {"queryset": "site_shop.models.large_orders", "refresh": 0.001}}
    with override_settings(MOLT={"SHM": configured.shm, "SOCKET": configured.socket, "TABLES": often}):
        until(lambda: "s LATE" in shown("molt_status"), "nobody has refreshed it")
        assert re.search(r"large .* s LATE +a client", shown("molt_tables"))
    before = _age(configured, "large")

    def younger() -> bool:
        tables.refresh(configured, "large")
        return _age(configured, "large") < before

    until(younger, "a refresh makes it young again")


def _age(client: molt_accel.Client, name: str) -> float:
    return next(table.age for table in client.tables() if table.name == name and not table.retired)


def test_what_is_no_queryset_is_named() -> None:
    for path, says in (
        ("site_shop.models.no_queryset", "a int. hint: give the dotted path of a model"),
        ("site_shop.models.nothing", "does not define a"),
    ):
        with override_settings(MOLT={"SHM": "/molt-tests-nobody", "TABLES": {"t": {"queryset": path}}}):
            with pytest.raises(ImproperlyConfigured, match=says):
                tables.queryset_of("t")
            assert "molt.E004" in {message.id for message in run_checks(tags=["molt"])}


def test_a_value_that_its_type_does_not_take_is_named() -> None:
    with connection.cursor() as cursor:
        cursor.execute("update site_shop_order set pieces = 40000")
    with pytest.raises(ValueError, match="column 'pieces' does not fit int16"):
        tables.read(Order.objects.all())


SITE = """
from django.conf import settings
table = {{"queryset": "site_shop.models.Customer", "refresh": 0.1}}
settings.configure(
    INSTALLED_APPS=["molt_accel.django", "site_shop"],
    USE_TZ=True,
    DATABASES={{"default": {{"ENGINE": "django.db.backends.sqlite3", "NAME": {database!r}}}}},
    MOLT={{"SHM": {name!r}, "ARENA": "16MiB", "TABLES": {{"customers": table}}}},
)
from django.core.management import execute_from_command_line
execute_from_command_line(["manage.py", "molt_worker", "--", "--threads", "1", "--supervise"])
"""


def test_the_workers_command_keeps_them_fresh_across_a_death_of_the_worker(tmp_path: Path) -> None:
    database, name = str(tmp_path / "shop.sqlite3"), f"/molt-tables-{os.getpid()}-{secrets.token_hex(4)}"
    with sqlite3.connect(database) as rows:
        rows.execute("create table site_shop_customer (id char(32) primary key, name varchar(40))")
        rows.execute("insert into site_shop_customer values (?, 'Ann')", (ANN.hex,))
    log = tmp_path / "terminal.log"
    with log.open("wb") as written:
        process = subprocess.Popen(
            [sys.executable, "-c", SITE.format(database=database, name=name)],
            stdout=written,
            stderr=written,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
        )
    try:

        def names() -> list[str]:
            try:
                with molt_accel.attach(name) as client:
                    return client.table("customers").to_pyarrow().column("name").to_pylist()
            except molt_accel.MoltError:
                return []

        until(lambda: names() == ["Ann"], f"the rows are there: {log.read_text()}", 60)
        with sqlite3.connect(database) as rows:
            rows.execute("insert into site_shop_customer values (?, 'Bob')", (uuid.UUID(int=2).hex,))
        until(lambda: names() == ["Ann", "Bob"], "new rows are there", 60)
        os.kill(molt_accel.Client(name).stats()["worker"]["pid"], signal.SIGKILL)
        until(lambda: names() == ["Ann", "Bob"], "the next worker has them too", 60)
        before = molt_accel.Client(name).stats()["worker"]["pid"]
        process.send_signal(signal.SIGHUP)  # as `systemctl reload` sends it
        until(lambda: molt_accel.Client(name).stats()["worker"]["pid"] != before, "a new worker has taken over", 60)
        until(lambda: names() == ["Ann", "Bob"], "it has them too", 60)
        until(lambda: "the former one leaves" in log.read_text(), "its supervisor has noted that it serves")
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        until(lambda: not Path("/dev/shm", name[1:]).exists(), "it leaves nothing")
    finally:
        process.kill()
        process.wait()
