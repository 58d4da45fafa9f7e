"""datafusion-python inside the view: a context for each thread, one partition, the regions resident in it."""

import threading
from functools import partial

import pyarrow as pa
from datafusion import SessionConfig, SessionContext

from . import tables

mine = threading.local()


def context() -> SessionContext:
    """This thread's, kept."""
    if not hasattr(mine, "context"):
        mine.context = SessionContext(SessionConfig().with_target_partitions(1))
        mine.context.register_record_batches("regions", [pa.table(tables.regions()).to_batches()])
    return mine.context


def ask(table: pa.Table) -> list[tables.Row]:
    """The statement over the body's columns where they lie; a table has to be registered for each request."""
    session = context()
    session.register_record_batches("orders", [table.to_batches()])
    try:
        batches = session.sql(tables.SQL).collect()
    finally:
        session.deregister_table("orders")
    return [
        tuple(row) for batch in batches for row in zip(*(column.to_pylist() for column in batch.columns), strict=True)
    ]


answer = partial(tables.answer, ask=ask)
