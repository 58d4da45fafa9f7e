"""Tables by ADBC: the same bytes as by the ORM, from a SQLite file and from a PostgreSQL server, or not by ADBC at
all."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import until

SCRIPT = """
import datetime as dt
import json
import logging
import sys
import uuid
from decimal import Decimal

from django.conf import settings

logging.basicConfig(format="%(message)s")
logging.getLogger("molt_accel.tables").setLevel(logging.DEBUG)  # why the ORM reads

settings.configure(
    INSTALLED_APPS=["molt_accel.django", "site_shop"],
    USE_TZ=True,
    TIME_ZONE="Europe/Berlin",
    DATABASES=json.loads(sys.argv[1]),
)
import django

django.setup()
from django.db import connection, models, transaction
from django.db.models.functions import TruncDay
from molt_accel.django import adbc, tables
from site_shop.models import Customer, Order, by_customer

with connection.schema_editor() as schema:
    schema.create_model(Customer)
    schema.create_model(Order)
people = [Customer(id=uuid.UUID(int=n * 10**30), name=f"name {n} 'quoted' %s gruesse \\u00fc") for n in range(1, 5)]
Customer.objects.bulk_create(people)
zone = dt.timezone(dt.timedelta(hours=2))
none = dict.fromkeys(("day", "at", "took", "paid", "weight", "note", "tags", "seal", "address"))
rows = [
    Order(
        customer=people[n % 4],
        amount=Decimal(n * 7919 - 10**9) / 100,
        placed=dt.datetime(2026, 3, 29, 1, 30, 0, n % 3 * 123456, tzinfo=zone) + dt.timedelta(hours=n),
        visits=2**60 - n,
        **(none if n < 1500 else dict(
            day=dt.date(2026, 1, 1) + dt.timedelta(days=n), at=dt.time(n % 24, 30, 0, n % 5),
            took=dt.timedelta(days=n, microseconds=7), paid=n % 3 == 0, pieces=n, weight=n / 7,
            note="" if n % 5 == 0 else f"12{n}", tags={"a": [n]}, seal=bytes([0, n % 256]),
            address="::1",
        )),
    )
    for n in range(3000)
]
Order.objects.bulk_create(rows, batch_size=500)


def both(queryset):
    found = {}
    pa = tables._pyarrow()
    columns = list(tables._columns(queryset, pa))
    schema = pa.schema([(column.name, column.kind) for column in columns])
    by_adbc = adbc.read(queryset, columns, schema)
    reading, adbc.read = adbc.read, lambda *arguments: None
    try:
        return by_adbc, tables.read(queryset)
    finally:
        adbc.read = reading


PLAIN = ["id", "placed", "day", "paid", "pieces", "visits", "weight", "note", "seal"]
orders, postgres = Order.objects.order_by("id"), connection.vendor == "postgresql"
by_name = Order.objects.values("customer__name").order_by("customer__name")
floats = by_name.annotate(w=models.Sum("weight"))
late = dt.datetime(2026, 4, 1, tzinfo=zone)
same = {
    "plain columns": orders.values(*PLAIN),
    "a part": orders.values(*PLAIN).filter(visits__lt=2**60 - 2000),
    "nothing found": orders.values(*PLAIN).filter(visits=-1),
    "nulls first": orders.values("note", "day", "weight").filter(visits__gt=2**60 - 2000),
    "nulls alone": orders.values("note", "day", "paid", "weight", "seal").filter(day=None),
    "texts as parameters": Customer.objects.filter(name__contains="%s").order_by("name").values("name"),
    "a relation and sums": by_name.annotate(n=models.Count("id"), p=models.Sum("pieces")),
}
if postgres:
    same["sums of floats"] = floats
    same["decimals and times"] = orders.values("amount", "at", "id").filter(placed__lt=late)
else:
    same["uuids"] = orders.values("customer_id", "customer__name")
    same["a whole model"] = Customer.objects.order_by("id")
left = {
    "json": orders.values("tags"),
    "durations": orders.values("took"),
    "addresses": orders.values("address"),
    "computed times": orders.annotate(d=TruncDay("placed")).values("d"),
    "an empty queryset": orders.none(),
    "a whole model with all of that": orders,
}
if not postgres:
    left["decimals"] = orders.values("amount")
    left["sums of floats"] = floats
for what, queryset in same.items():
    by_adbc, by_orm = both(queryset)
    assert by_adbc is not None, f"{what}: left to the ORM"
    assert by_adbc.schema == by_orm.schema, f"{what}: {by_adbc.schema} is not {by_orm.schema}"
    assert by_adbc.combine_chunks() == by_orm.combine_chunks(), what
    by_adbc.validate(full=True)
    assert what.startswith("nothing") or by_adbc.num_rows, what
for what, queryset in left.items():
    by_adbc, by_orm = both(queryset)
    assert by_adbc is None, f"{what}: {by_adbc.schema}"
with transaction.atomic():
    Customer.objects.create(id=uuid.UUID(int=9), name="not committed yet")
    by_adbc, by_orm = both(Customer.objects.values("name"))
    assert by_adbc is None and by_orm.num_rows == 5
if not postgres:  # which takes any value in any column
    with connection.cursor() as cursor:
        cursor.execute("update site_shop_order set pieces = 40000 where visits = %s", [2**60 - 2999])
    try:
        tables.read(orders.values("pieces"))
    except ValueError as reason:
        assert "column 'pieces' does not fit int16" in str(reason), reason
    else:
        raise AssertionError("it fits")
print("equal", len(same))
"""


def compared(databases: dict[str, Any], folder: Path) -> None:
    import json

    ran = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps({"default": databases})],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ran.returncode == 0 and ran.stdout.startswith("equal"), ran.stderr


def test_a_sqlite_file_gives_the_same_by_both_ways(tmp_path: Path) -> None:
    compared({"ENGINE": "django.db.backends.sqlite3", "NAME": str(tmp_path / "odd name?%20.sqlite3")}, tmp_path)


def _postgres() -> Path | None:
    """The folder of PostgreSQL's programs: Debian keeps them out of PATH."""
    found = shutil.which("initdb")
    if found is not None:
        return Path(found).resolve().parent
    return next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)), None)


@pytest.fixture
def postgresql() -> Iterator[Path]:
    """The socket's folder of a server of the test's own, which trusts everybody who can reach it."""
    programs = _postgres()
    if programs is None:
        pytest.skip("PostgreSQL is not installed")
    folder = Path(tempfile.mkdtemp(prefix="molt-pg-"))
    as_whom: dict[str, Any] = {}
    if os.geteuid() == 0:  # as which it refuses to run
        shutil.chown(folder, "nobody")
        as_whom = {"user": "nobody", "cwd": folder}
    try:
        data = folder / "data"
        initdb = [
            programs / "initdb",
            "--auth=trust",
            "--username=postgres",
            "--no-sync",
            "--encoding=UTF8",
            "--locale=C",
            data,
        ]
        subprocess.run(initdb, check=True, capture_output=True, timeout=120, **as_whom)
        log = (folder / "server.log").open("wb")
        with (
            log,
            subprocess.Popen(
                [programs / "postgres", "-D", data, "-k", folder, "-h", "", "-F"], stdout=log, stderr=log, **as_whom
            ) as server,
        ):
            try:
                ready = [programs / "pg_isready", "--host", folder, "--username=postgres"]
                until(lambda: subprocess.run(ready, capture_output=True).returncode == 0, "PostgreSQL serves", 60)
                yield folder
            finally:
                server.terminate()
                server.wait(60)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def test_a_postgresql_server_gives_the_same_by_both_ways(postgresql: Path, tmp_path: Path) -> None:
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    server = {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": "postgres",
        "USER": "postgres",
        "HOST": str(postgresql),
    }
    compared({**server, "OPTIONS": {"application_name": "molt & co"}}, tmp_path)
