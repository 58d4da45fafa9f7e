"""The report's baseline on PostgreSQL: found by the standard variables, filled by COPY, of the same answer."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connections
from django.test import Client

from demo.database import SCHEMA, report_database
from orders.report import database, files, generate
from tests import postgresql
from tests.test_report import LINES, at, queries

pytest.importorskip("psycopg", reason="needs psycopg: pip install 'psycopg[binary]'")
pytestmark = pytest.mark.skipif(postgresql.missing() is not None, reason=str(postgresql.missing()))


@pytest.fixture(scope="module")
def server() -> Iterator[dict[str, str]]:
    """A server, to which the environment leads."""
    with postgresql.server() as variables, pytest.MonkeyPatch.context() as patch:
        patch.delenv("DEMO_DATABASE_URL", raising=False)
        for name, value in variables.items():
            patch.setenv(name, value)
        yield variables


@contextmanager
def connected(settings: dict[str, Any]) -> Iterator[Any]:
    """Django's connection to another database than the one of its settings."""
    before, connections.databases["report"] = connections.databases["report"], settings
    connections["report"].close()
    del connections["report"]
    connections.configure_settings(connections.databases)
    try:
        yield connections["report"]
    finally:
        connections["report"].close()
        del connections["report"]
        connections.databases["report"] = before


def test_the_running_server_is_found_by_the_standard_variables(
    server: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "report.sqlite3"
    assert report_database(file)["ENGINE"].endswith("postgresql")
    monkeypatch.setenv("PGHOST", str(tmp_path))
    assert report_database(file)["ENGINE"].endswith("sqlite3"), "nobody answers there"
    monkeypatch.setenv("DEMO_DATABASE_URL", "postgres://demo@localhost/named")
    assert report_database(file)["NAME"] == "named", "what is named comes first"
    monkeypatch.undo()
    for name in server:
        monkeypatch.delenv(name, raising=False)
    assert report_database(file)["ENGINE"].endswith("sqlite3"), "nothing leads to it"


def test_the_lines_are_copied_and_the_answers_are_the_same(
    server: dict[str, str], worker: Any, tmp_path: Path, django_db_blocker: Any, http: Client
) -> None:
    with django_db_blocker.unblock(), at(tmp_path):
        call_command("report_data", load=True)
        asked = list(queries(seed=7))[:25]

        def answers(path: str) -> list[Any]:
            return [http.get(path, {name: value for name, value in query.items() if value}).json() for query in asked]

        expected = answers("/offload/report/")
        assert answers("/baseline/report/") == expected, "SQLite"
        with connected(report_database(files.database_path())) as connection:
            assert connection.vendor == "postgresql" and database.filled_lines() == 0
            told: list[int] = []
            database.fill(lambda done, total: told.append(done))
            assert database.filled_lines() == LINES == told[-1]
            with connection.cursor() as cursor:
                cursor.execute(
                    "select table_schema, count(*) from information_schema.tables where table_name like 'orders_%' group by 1"
                )
                assert cursor.fetchall() == [(SCHEMA, 2)], "tables of others are not touched"
                cursor.execute("select count(*) from pg_indexes where schemaname = %s", [SCHEMA])
                assert cursor.fetchone()[0] > 2, "the indexes are made"
                cursor.execute("select min(day), max(day), count(distinct customer_id) from orders_orderline")
                assert cursor.fetchone()[0] == generate.FIRST_DAY
            assert answers("/baseline/report/") == expected
            database.fill(lambda done, total: None)
            assert database.filled_lines() == LINES, "filled anew, not twice"
