"""Who answers. Each holds resident tables, takes others with a question, and gives a table or frame of its own kind."""

from abc import ABC, abstractmethod
from typing import Any

import pyarrow as pa

from .questions import Question

THREADS = 2
Tables = dict[str, pa.Table]


class Engine(ABC):
    """`hold` is done once, outside of what is timed; `ask` is what is timed."""

    name: str
    #: The largest table that is handed over to it, in rows.
    most_handed = 10_000_000

    @abstractmethod
    def hold(self, tables: Tables) -> None:
        """Makes tables resident."""

    @abstractmethod
    def ask(self, question: Question, given: Tables) -> Any:
        """Answers; `given` are tables that are handed over with the question."""

    def arrow(self, answer: Any) -> pa.Table:
        """An answer as Arrow, for comparing."""
        return pa.table(answer)


class Molt(Engine):
    """The worker beside this process; the statement travels with each question."""

    name = "molt"

    def __init__(self, client: Any) -> None:
        self.client = client

    def hold(self, tables: Tables) -> None:
        for name, table in tables.items():
            self.client.put(name, table)

    def ask(self, question: Question, given: Tables) -> Any:
        return self.client.query(question.sql, tables=given).to_pyarrow()


class MoltEntry(Molt):
    """An entry of the manifest, whose plan is kept; it takes one table."""

    name = "molt, an entry"

    def __init__(self, client: Any, entry: str) -> None:
        super().__init__(client)
        self.entry = entry

    def ask(self, question: Question, given: Tables) -> Any:
        (table,) = given.values()
        return self.client.call(self.entry, table, codec="arrow").to_pyarrow()


class DuckDb(Engine):
    """On Arrow tables where they lie."""

    name = "DuckDB"

    def __init__(self) -> None:
        import duckdb

        self.database = duckdb.connect()
        self.database.execute(f"set threads = {THREADS}")

    def hold(self, tables: Tables) -> None:
        for name, table in tables.items():
            self.database.register(name, table)

    def ask(self, question: Question, given: Tables) -> Any:
        self.hold(given)
        answer = self.database.sql(question.sql).to_arrow_table()
        for name in given:
            self.database.unregister(name)
        return answer


class Polars(Engine):
    """In memory; POLARS_MAX_THREADS says how many threads (see `queries.ENVIRONMENT`)."""

    name = "Polars"
    engine = "in-memory"

    def __init__(self) -> None:
        import polars

        self.polars = polars
        assert polars.thread_pool_size() == THREADS
        self.frames: dict[str, Any] = {}

    def hold(self, tables: Tables) -> None:
        self.frames |= {name: self.polars.from_arrow(table).lazy() for name, table in tables.items()}

    def ask(self, question: Question, given: Tables) -> Any:
        frames = self.frames | {name: self.polars.from_arrow(table).lazy() for name, table in given.items()}
        return question.polars(frames).collect(engine=self.engine)

    def arrow(self, answer: Any) -> pa.Table:
        return answer.to_arrow()


class PolarsStreaming(Polars):
    """The same with its streaming engine."""

    name = "Polars, streaming"
    engine = "streaming"


class Pandas(Engine):
    """One thread, as pandas has it."""

    name = "pandas"
    most_handed = 1_000_000  # ten million take half a minute each time, nearly all of it for the texts

    def __init__(self) -> None:
        import pandas

        del pandas
        self.frames: dict[str, Any] = {}

    def hold(self, tables: Tables) -> None:
        self.frames |= {name: table.to_pandas() for name, table in tables.items()}

    def ask(self, question: Question, given: Tables) -> Any:
        return question.pandas(self.frames | {name: table.to_pandas() for name, table in given.items()})

    def arrow(self, answer: Any) -> pa.Table:
        return pa.Table.from_pandas(answer, preserve_index=False)


class DataFusion(Engine):
    """datafusion-python: what molt's worker has inside, without the worker."""

    name = "datafusion-python"

    def __init__(self) -> None:
        import datafusion

        self.context = datafusion.SessionContext(datafusion.SessionConfig().with_target_partitions(THREADS))

    def hold(self, tables: Tables) -> None:
        for name, table in tables.items():
            self.context.register_record_batches(name, _shares(table))

    def ask(self, question: Question, given: Tables) -> Any:
        self.hold(given)
        answer = self.context.sql(question.sql).to_arrow_table()
        for name in given:
            self.context.deregister_table(name)
        return answer


def _shares(table: pa.Table) -> list[list[pa.RecordBatch]]:
    """A table's batches, dealt out to the threads; small ones, as files would give them."""
    batches = table.to_batches(max_chunksize=1 << 16)
    return [share for share in (batches[number::THREADS] for number in range(THREADS)) if share] or [batches]


PEERS = (DuckDb, Polars, PolarsStreaming, Pandas, DataFusion)
