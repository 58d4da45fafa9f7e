"""The report's tables in the Django ORM's database: SQLite, or a PostgreSQL (see `demo.database`)."""

from collections.abc import Iterator
from datetime import date, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from django.db import connections, transaction

from demo.database import SCHEMA
from orders.models import Customer, OrderLine
from orders.report.files import DATABASE, Whole, customers_path, database_path, lines_path, need
from orders.report.generate import BATCH, DAYS, FIRST_DAY, Progress


def fill(progress: Progress) -> None:
    """Copies the Parquet files into the ORM's database: tables, rows, then the indexes."""
    lines = pq.ParquetFile(need(lines_path()))
    if connections[DATABASE].vendor != "sqlite":
        _fill(lines, progress)
        return
    final = database_path()
    connections[DATABASE].close()
    with Whole(final) as half:
        connections[DATABASE].settings_dict["NAME"] = half
        try:
            # Nobody sees the file before it is whole, and one that is not whole is thrown away: no journal is needed.
            with connections[DATABASE].cursor() as cursor:
                cursor.execute("pragma journal_mode = off")
                cursor.execute("pragma synchronous = off")
            _fill(lines, progress)
        finally:
            connections[DATABASE].close()
            connections[DATABASE].settings_dict["NAME"] = final


def filled_lines() -> int:
    """How many order lines the ORM's database has; 0: none, or no database."""
    connection = connections[DATABASE]
    if connection.vendor == "sqlite" and not database_path().exists():
        return 0
    if OrderLine._meta.db_table not in connection.introspection.table_names():
        return 0
    return OrderLine.objects.using(DATABASE).count()


def _fill(lines: pq.ParquetFile, progress: Progress) -> None:
    connection = connections[DATABASE]
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("show search_path")
            (path,) = cursor.fetchone()
            if path == SCHEMA:
                cursor.execute(f"create schema if not exists {SCHEMA}")
    with connection.schema_editor() as editor:
        for model in (OrderLine, Customer):
            if model._meta.db_table in connection.introspection.table_names():
                editor.delete_model(model)
        indexes, OrderLine._meta.indexes = OrderLine._meta.indexes, []  # made at the end, when they are only sorted
        try:
            editor.create_model(Customer)
            editor.create_model(OrderLine)
        finally:
            OrderLine._meta.indexes = indexes
    with connection.constraint_checks_disabled(), transaction.atomic(DATABASE), connection.cursor() as cursor:
        columns = [column.to_pylist() for column in pq.read_table(need(customers_path())).columns]
        _insert(cursor, Customer, ("id", "name", "region"), zip(*columns, strict=True))
        _insert_lines(cursor, lines, progress)
    with connection.schema_editor() as editor:
        for index in indexes:
            editor.add_index(OrderLine, index)
    with connection.cursor() as cursor:
        cursor.execute("analyze")


def _insert_lines(cursor, lines: pq.ParquetFile, progress: Progress) -> None:
    done, total = 0, lines.metadata.num_rows
    days = [(FIRST_DAY + timedelta(day)).isoformat() for day in range(DAYS)]
    first = (FIRST_DAY - date(1970, 1, 1)).days
    for batch in lines.iter_batches(BATCH):
        whole = pa.table(batch)
        rows = zip(
            range(done + 1, done + len(batch) + 1),
            map(days.__getitem__, (whole["day"].cast(pa.int32()).to_numpy() - first).tolist()),
            whole["customer"].to_numpy().tolist(),
            whole["category"].cast(pa.string()).to_pylist(),
            whole["qty"].to_numpy().tolist(),
            _cents(whole["net"]),
            strict=True,
        )
        _insert(cursor, OrderLine, ("id", "day", "customer_id", "category", "qty", "net_cents"), rows)
        done += len(batch)
        progress(done, total)


def _cents(net: pa.ChunkedArray) -> list[int]:
    """Decimals as whole cents."""
    whole = net.combine_chunks()
    words = np.frombuffer(whole.buffers()[1], dtype=np.int64).reshape(-1, 2)
    return words[whole.offset : whole.offset + len(whole), 0].tolist()


def _insert(cursor, model: type, columns: tuple[str, ...], rows: Iterator[tuple]) -> None:
    into = f"{model._meta.db_table} ({', '.join(columns)})"
    if cursor.db.vendor == "postgresql":  # where insert takes ten times as long
        with cursor.copy(f"copy {into} from stdin") as copy:
            for row in rows:
                copy.write_row(row)
        return
    cursor.executemany(f"insert into {into} values ({', '.join(['%s'] * len(columns))})", rows)
