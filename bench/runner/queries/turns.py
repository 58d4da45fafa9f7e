"""Rounds in which each engine has its turn, after their answers were compared."""

import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from .engines import Engine, Tables
from .questions import Question

CLOSE = 1e-9  # floats are added in another order by each engine
#: Seconds that an engine may take over one question in all rounds: one that needs seconds a call has fewer turns.
PATIENCE = 5.0


class Different(Exception):
    """Two engines answer one question differently."""


def compared(question: Question, engines: Sequence[Engine], given: Tables) -> int:
    """The rows of the answer, the same by all of them; raises Different."""
    first, *others = [(one.name, ordered(question, one.arrow(one.ask(question, given)))) for one in engines]
    for name, answer in others:
        if (what := difference(first[1], answer)) is not None:
            raise Different(f"{question.name}: {name} and {first[0]} answer differently: {what}")
    return first[1].num_rows


def ordered(question: Question, answer: pa.Table) -> pa.Table:
    """An answer with its columns and rows in one order."""
    plain = pa.table({name: _plain(answer[name]) for name in sorted(answer.column_names)})
    return plain.sort_by([(key, "ascending") for key in question.keys])


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Engines give one number as different types."""
    if pa.types.is_integer(column.type):
        return column.cast(pa.int64())
    if pa.types.is_floating(column.type):
        return column.cast(pa.float64())
    if pa.types.is_decimal(column.type):  # a sum of integers, as DuckDB has it
        return column.cast(pa.decimal128(38, 0)).cast(pa.int64())
    return column.cast(pa.string())


def difference(one: pa.Table, other: pa.Table) -> str | None:
    """What is different, or None."""
    if one.schema.names != other.schema.names or one.num_rows != other.num_rows:
        return f"{one.num_rows} rows of {one.schema.names} and {other.num_rows} of {other.schema.names}"
    for name in one.column_names:
        a, b = one[name].combine_chunks(), other[name].combine_chunks()
        if a.type != b.type:
            return f"column {name} is {a.type} and {b.type}"
        if pa.types.is_floating(a.type):
            apart = pc.max(pc.divide(pc.abs(pc.subtract(a, b)), pc.max_element_wise(pc.abs(a), 1.0))).as_py()
            if a.null_count != b.null_count or (apart or 0) > CLOSE:
                return f"column {name} is apart by {apart}"
        elif not a.equals(b):
            return f"column {name} differs"
    return None


def timed(
    question: Question, engines: Sequence[Engine], given: Tables, rounds: int, calls: int, said: Callable[[str], object]
) -> list[dict[str, Any]]:
    """Milliseconds of a call of each engine: the median over the rounds, least and greatest beside it."""
    rows = compared(question, engines, given)
    took: dict[str, list[float]] = {one.name: [] for one in engines}
    for _ in range(rounds):
        for one in engines:
            if sum(took[one.name]) * calls > PATIENCE * 1e3:
                continue
            began = time.perf_counter()
            for _ in range(calls):
                one.ask(question, given)
            took[one.name].append((time.perf_counter() - began) / calls * 1e3)
    said(f"{question.name}: " + ", ".join(f"{name} {median(ms):.2f} ms" for name, ms in took.items()))
    return [
        {
            "question": question.name,
            "engine": name,
            "ms": median(ms),
            "from_ms": min(ms),
            "to_ms": max(ms),
            "turns": len(ms),
            "answer_rows": rows,
        }
        for name, ms in took.items()
    ]
