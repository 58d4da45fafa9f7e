"""The four report endpoints give the same answer, to good parameters and to bad ones."""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from random import Random

import pyarrow.parquet as pq
import pytest
from django.conf import settings
from django.core.management import CommandError, call_command
from django.db import connections
from django.test import Client, override_settings
from molt_accel import SpawnedClient

from orders.report import COLUMNS, TOP, by_duckdb, by_polars, files, generate
from tests.processes import GRANIAN_WSGI, Server, Worker

ENDPOINTS = ("/baseline/report/", "/offload/report/", "/polars/report/", "/duckdb/report/")
LINES = 120_000
"""More than one thread reads by itself, so that the plan is the one that serves five million."""
QUERIES = 120
LAST_DAY = generate.FIRST_DAY + timedelta(generate.DAYS - 1)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, worker: SpawnedClient, django_db_blocker) -> Iterator[Path]:
    """Order lines in files, in the database and in the worker."""
    folder = tmp_path_factory.mktemp("report") / "data"
    with django_db_blocker.unblock(), at(folder):
        call_command("report_data", load=True)
        yield folder


@contextmanager
def at(folder: Path) -> Iterator[None]:
    """Settings that look for the report's data in a folder; what this process held of other data is let go of."""
    forget()
    database = connections.databases["report"]
    before, database["NAME"] = database["NAME"], folder / "report.sqlite3"
    try:
        with override_settings(REPORT_DATA=folder, REPORT_LINES=LINES):
            yield
    finally:
        forget()
        database["NAME"] = before


def forget() -> None:
    """Lets go of the tables that this process holds as a web process does."""
    by_polars._tables.cache_clear()
    by_duckdb._database.cache_clear()
    connections["report"].close()


def ask(http: Client, path: str, **query: object) -> tuple[int, object]:
    """The status and the parsed answer."""
    response = http.get(path, {name: value for name, value in query.items() if value is not None})
    return response.status_code, json.loads(response.content)


def queries(seed: int) -> Iterator[dict[str, object]]:
    """Spans of a day, of a month, of all the time, and beyond its ends; each region, and all of them."""
    random = Random(seed)
    for _ in range(QUERIES):
        first = generate.FIRST_DAY + timedelta(random.randrange(-10, generate.DAYS + 10))
        span = random.choice((0, 0, 6, 30, 30, 89, 364, 900))
        region = random.choice((*generate.REGIONS, None))
        yield {"region": region, "from": first, "to": first + timedelta(span)}


def test_equal_over_many_parameters(data: Path, http: Client) -> None:
    sizes = []
    for query in queries(seed=20261124):
        first, *others = (ask(http, path, **query) for path in ENDPOINTS)
        for path, other in zip(ENDPOINTS[1:], others, strict=True):
            assert other == first, f"{path} and {ENDPOINTS[0]} answer {query} differently"
        assert first[0] == 200, query
        sizes.append(len(first[1]))
    # A generator of spans that found nothing, or always the same, would compare nothing.
    assert sizes.count(0) < QUERIES / 5 and len(set(sizes)) > QUERIES / 4


@pytest.mark.parametrize("region", [None, "west"])
def test_the_answer_is_what_the_order_lines_say(data: Path, http: Client, region: str | None) -> None:
    first, last = date(2024, 2, 20), date(2024, 5, 3)
    customers = {row["id"]: row for row in pq.read_table(files.customers_path()).to_pylist()}
    days, buyers, best = (defaultdict(lambda: [0, 0, Decimal()]) for _ in range(3))
    for line in pq.read_table(files.lines_path()).to_pylist():
        if first <= line["day"] <= last and region in (None, customers[line["customer"]]["region"]):
            for sums in (days[line["day"], line["category"]], buyers[line["customer"]], best[line["day"]]):
                sums[0] += 1
                sums[1] += line["qty"]
                sums[2] += line["net"]
    expected, running = [], Counter()
    for (day, category), sums in sorted(days.items()):
        running[category] += sums[2]
        expected.append(row("days", sums, day=str(day), category=category, running=str(running[category])))
    for customer, sums in sorted(buyers.items(), key=lambda item: (-item[1][2], item[0]))[:TOP]:
        expected.append(row("top_customers", sums, customer=customer, name=customers[customer]["name"]))
    for day, sums in sorted(best.items(), key=lambda item: (-item[1][2], item[0]))[:TOP]:
        expected.append(row("top_days", sums, day=str(day)))
    assert ask(http, "/offload/report/", region=region, **{"from": first, "to": last}) == (200, expected)
    assert len(expected) > 2 * TOP


def row(part: str, sums: list, **more: object) -> dict[str, object]:
    lines, pieces, net = sums
    return dict.fromkeys(COLUMNS) | {"part": part, "lines": lines, "pieces": pieces, "net": str(net)} | more


def test_money_keeps_its_cents(data: Path, http: Client) -> None:
    _, rows = ask(http, "/offload/report/", **{"from": generate.FIRST_DAY, "to": LAST_DAY})
    cents = re.compile(r"[0-9]+\.[0-9]{2}")
    assert all(cents.fullmatch(row["net"]) for row in rows)
    total = sum(Decimal(row["net"]) for row in rows if row["part"] == "days")
    assert total == sum(pq.read_table(files.lines_path())["net"].to_pylist())
    assert total == sum({row["category"]: Decimal(row["running"]) for row in rows if row["part"] == "days"}.values())


@pytest.mark.parametrize(
    ("field", "query"),
    [
        ("from", "to=2025-01-31"),
        ("to", "from=2025-01-01"),
        ("from", "from=&to=2025-01-31"),
        ("from", "from=yesterday&to=2025-01-31"),
        ("from", "from=2025-02-29&to=2025-03-31"),
        ("from", "from=20250101&to=2025-01-31"),
        ("from", "from=2025-01-01T00:00&to=2025-01-31"),
        ("from", "from=%D9%A2025-01-01&to=2025-01-31"),
        ("from", "from=2025-01-01&from=2025-01-02&to=2025-01-31"),
        ("to", "from=2025-01-01&to=0000-00-00"),
        ("to", "from=2025-02-01&to=2025-01-31"),
        ("region", "region=atlantis&from=2025-01-01&to=2025-01-31"),
        ("region", "region=&from=2025-01-01&to=2025-01-31"),
        ("region", "region=north&region=west&from=2025-01-01&to=2025-01-31"),
        ("region", "region=north'%20or%20'1'='1&from=2025-01-01&to=2025-01-31"),
        ("region", "region=%00&from=2025-01-01&to=2025-01-31"),
    ],
)
def test_bad_parameters_are_named(data: Path, http: Client, field: str, query: str) -> None:
    answers = [http.get(f"{path}?{query}") for path in ENDPOINTS]
    assert [answer.status_code for answer in answers] == [400] * len(ENDPOINTS)
    told = [answer.json() for answer in answers]
    assert all(one == told[0] for one in told)
    assert told[0]["field"] == field and field in told[0]["error"] and told[0]["index"] is None


def test_what_else_is_asked_for_is_not_read(data: Path, http: Client) -> None:
    query = {"from": "2025-01-01", "to": "2025-01-31"}
    for path in ENDPOINTS:
        assert ask(http, path, sql="drop table order_lines", **query) == ask(http, path, **query)


def test_without_the_data_there_is_a_conflict(own_worker: Worker, tmp_path: Path, http: Client) -> None:
    with at(tmp_path / "nothing"), override_settings(MOLT={**settings.MOLT, "SHM": own_worker.shm}):
        for path in ENDPOINTS:
            status, told = ask(http, path, **{"from": "2025-01-01", "to": "2025-01-31"})
            assert status == 409, path
            assert "hint:" in told["error"], path


def test_the_same_seed_gives_the_same_lines() -> None:
    one, other = (list(generate.line_batches(3_000)) for _ in range(2))
    assert one == other
    assert sum(map(len, one)) == 3_000
    assert generate.customers(3_000).equals(generate.customers(3_000))
    assert list(generate.line_batches(3_000, seed=2)) != one
    days = one[0]["day"].to_pylist()
    assert days == sorted(days) and days[0] == generate.FIRST_DAY and days[-1] == LAST_DAY


def test_what_is_there_is_not_made_again(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def stamps() -> dict[str, int]:
        return {path.name: path.stat().st_mtime_ns for path in data.iterdir()}

    before = stamps()
    assert set(before) == {"customers.parquet", "order_lines.parquet", "report.sqlite3"}
    capsys.readouterr()
    call_command("report_data")
    assert stamps() == before
    assert capsys.readouterr().out == ""


def test_another_number_of_lines_is_made_anew(tmp_path: Path, django_db_blocker, capsys) -> None:
    folder = tmp_path / "data"
    with django_db_blocker.unblock():
        for lines in (1_000, 2_000):
            with at(folder), override_settings(REPORT_LINES=lines):
                call_command("report_data")
                assert pq.read_metadata(files.lines_path()).num_rows == lines
                with connections["report"].cursor() as cursor:
                    cursor.execute("select count(*), sum(net_cents) from orders_orderline")
                    cents = int(sum(pq.read_table(files.lines_path())["net"].to_pylist()) * 100)
                    assert cursor.fetchone() == (lines, cents)
    assert "100 %" in capsys.readouterr().out


def test_without_a_worker_nothing_can_be_loaded(data: Path) -> None:
    with (
        override_settings(MOLT={**settings.MOLT, "SHM": "/molt-django-nobody"}),
        pytest.raises(CommandError, match="/molt-django-nobody.*hint:"),
    ):
        call_command("report_data", load=True)


def test_under_a_web_server(data: Path, worker: SpawnedClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEMO_REPORT_DATA", str(data))
    with Server(GRANIAN_WSGI, tmp_path, worker.shm) as server:
        for query in ("region=north&from=2025-03-01&to=2025-03-31", "from=2024-01-01&to=2025-12-31"):
            answers = [server.client.get(f"{path}?{query}") for path in ENDPOINTS]
            assert [answer.status_code for answer in answers] == [200] * len(ENDPOINTS), server.held.said()
            first, *others = (answer.json() for answer in answers)
            assert len(first) > 2 * TOP and all(other == first for other in others)
