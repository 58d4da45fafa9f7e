"""DuckDB inside the view: a connection for each thread, the regions resident in it, the body read as Arrow."""

import threading
from functools import partial

import duckdb
import pyarrow as pa

from . import tables

mine = threading.local()


def connection() -> duckdb.DuckDBPyConnection:
    """This thread's, kept."""
    if not hasattr(mine, "connection"):
        mine.connection = duckdb.connect(config={"threads": 1})
        mine.connection.register("r", pa.table(tables.regions()))
        mine.connection.execute("create table regions as select * from r")
    return mine.connection


def ask(table: pa.Table) -> list[tables.Row]:
    """The statement over the body's columns where they lie."""
    database = connection()
    database.register("orders", table)
    try:
        return database.execute(tables.SQL).fetchall()
    finally:
        database.unregister("orders")


answer = partial(tables.answer, ask=ask)
