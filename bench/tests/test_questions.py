"""Questions over tables: every engine answers all of them alike, a difference is seen, and the figures are judged."""

import polars as pl
import pyarrow as pa
import pytest

from bench.runner import analytics
from bench.runner.owned import Owned
from bench.runner.queries import SCALES, data, turns
from bench.runner.queries.engines import DuckDb, Pandas
from bench.runner.queries.questions import RESIDENT, SUMMARY, Question

ENGINES = {"molt", "DuckDB", "Polars", "Polars, streaming", "pandas", "datafusion-python"}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """Every question once."""
    with Owned() as owned:
        return analytics.measure(owned, tmp_path_factory.mktemp("logs"), "--check")


def test_every_engine_answers_every_question(found: dict) -> None:
    assert found["missing"] == {}
    asked = {(row["question"], row["engine"]) for row in found["resident"]}
    assert asked == {(question.name, engine) for question in RESIDENT for engine in ENGINES}
    handed = {(row["rows"], row["engine"]) for row in found["handed"]}
    assert handed == {(rows, engine) for rows, _ in SCALES["--check"].handed for engine in {*ENGINES, "molt, an entry"}}
    assert all(0 < row["from_ms"] <= row["ms"] <= row["to_ms"] for row in (*found["handed"], *found["resident"]))
    assert all(row["answer_rows"] > 0 for row in (*found["handed"], *found["resident"]))


def test_a_table_is_handed_over_without_a_copy(found: dict) -> None:
    assert found["handing"]["copied_bytes"] == {"tiny": 0, "huge": 0}
    assert set(found["handing"]["us"]) == {"tiny", "huge"}


def test_it_is_shown_and_judged(found: dict) -> None:
    shown = analytics.tables(found)
    assert [len(table.rows) for table in shown] == [len(SCALES["--check"].handed), len(RESIDENT), 2]
    assert {one.target for one in analytics.verdicts(found)} == {"S5", "S7"}  # no 10,000 rows in a check
    handed = [
        {
            "rows": 10_000,
            "question": SUMMARY.name,
            "engine": engine,
            "ms": ms,
            "from_ms": ms,
            "to_ms": ms,
            "answer_rows": 1,
        }
        for engine, ms in (("molt, an entry", 1.0), ("DuckDB", 4.0), ("Polars", 5.0))
    ]
    verdicts = {one.target: one.verdict for one in analytics.verdicts({**found, "handed": handed})}
    assert verdicts["S6"] == "reached"


@pytest.mark.parametrize("wrong", ["a sum", "a row", "a name"])
def test_a_different_answer_is_seen(wrong: str) -> None:
    asked = RESIDENT[0]
    frames = {
        "a sum": lambda t: asked.pandas(t).assign(v1=lambda answer: answer.v1 + (answer.id1 == "id007")),
        "a row": lambda t: asked.pandas(t).iloc[1:],
        "a name": lambda t: asked.pandas(t).rename(columns={"v1": "v2"}),
    }
    question = Question(asked.name, asked.sql, asked.polars, frames[wrong], asked.keys)
    every = [DuckDb(), Pandas()]
    for one in every:
        one.hold(data.many(2_000))
    assert turns.compared(asked, every, {}) == data.GROUPS
    with pytest.raises(turns.Different, match="pandas and DuckDB"):
        turns.compared(question, every, {})


def test_floats_may_differ_in_their_last_digits_alone() -> None:
    one = pa.table({"v": [1.0, 2.0, None]})
    assert turns.difference(one, pa.table({"v": [1.0, 2.0 + 1e-12, None]})) is None
    assert turns.difference(one, pa.table({"v": [1.0, 2.001, None]})) is not None
    assert turns.difference(one, pa.table({"v": [1.0, 2.0, 3.0]})) is not None


def test_the_data_is_the_same_each_time() -> None:
    assert data.orders(500).equals(data.orders(500))
    one, other = data.many(500), data.many(500)
    assert all(one[name].equals(other[name]) for name in one)
    assert pl.from_arrow(one["big"])["id"].n_unique() == 450
