"""What is asked: in SQL for those who speak it, as expressions for Polars and pandas."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pandas as pd
import polars as pl

Frames = dict[str, Any]


@dataclass(frozen=True)
class Question:
    """`keys` are the columns by which the rows of two answers are put in one order."""

    name: str
    sql: str
    polars: Callable[[Frames], pl.LazyFrame]
    pandas: Callable[[Frames], pd.DataFrame]
    keys: tuple[str, ...]


def _summary_polars(t: Frames) -> pl.LazyFrame:
    kept = t["orders"].filter(pl.col("qty") >= 10).join(t["regions"], on="region")
    gross = (pl.col("qty") * pl.col("price")).sum().alias("gross")
    groups = kept.group_by("zone", "category").agg(pl.len().alias("lines"), pl.col("qty").sum().alias("pieces"), gross)
    return groups.sort("gross", "zone", "category", descending=[True, False, False])


def _summary_pandas(t: Frames) -> pd.DataFrame:
    kept = t["orders"][t["orders"].qty >= 10].merge(t["regions"], on="region")
    groups = kept.assign(gross=kept.qty * kept.price).groupby(["zone", "category"], as_index=False, observed=True)
    found = groups.agg(lines=("qty", "size"), pieces=("qty", "sum"), gross=("gross", "sum"))
    return found.sort_values(["gross", "zone", "category"], ascending=[False, True, True])


SUMMARY = Question(
    "filter, join, group, sort",
    "select zone, category, count(*) as lines, sum(qty) as pieces, sum(qty * price) as gross "
    "from orders join regions on orders.region = regions.region where qty >= 10 "
    "group by zone, category order by gross desc, zone, category",
    _summary_polars,
    _summary_pandas,
    ("zone", "category"),
)


def _grouped(name: str, keys: tuple[str, ...], **sums: tuple[str, str]) -> Question:
    """Sums and means by some columns: `v1=("sum", "v1")`."""
    sql = ", ".join(f"{how.replace('mean', 'avg')}({column}) as {out}" for out, (how, column) in sums.items())
    by = ", ".join(keys)
    return Question(
        name,
        f"select {by}, {sql} from x group by {by}",
        lambda t: (
            t["x"].group_by(*keys).agg(*(_polars_sum(how, column).alias(out) for out, (how, column) in sums.items()))
        ),
        lambda t: (
            t["x"]
            .groupby(list(keys), as_index=False)
            .agg(**{out: (column, how) for out, (how, column) in sums.items()})
        ),
        keys,
    )


def _polars_sum(how: str, column: str) -> pl.Expr:
    picked = pl.col(column)
    return picked.cast(pl.Int64).sum() if how == "sum" and column != "v3" else getattr(picked, how)()


def _span_polars(t: Frames) -> pl.LazyFrame:
    return t["x"].group_by("id3").agg((pl.col("v1").max() - pl.col("v2").min()).alias("span"))


def _span_pandas(t: Frames) -> pd.DataFrame:
    found = t["x"].groupby("id3", as_index=False).agg(high=("v1", "max"), low=("v2", "min"))
    return found.assign(span=found.high - found.low)[["id3", "span"]]


def _top_polars(t: Frames) -> pl.LazyFrame:
    return t["x"].group_by("id6").agg(pl.col("v3").top_k(2)).explode("v3")


def _top_pandas(t: Frames) -> pd.DataFrame:
    return t["x"][["id6", "v3"]].sort_values("v3", ascending=False).groupby("id6").head(2)


def _joined(name: str, other: str, key: str, left: bool = False) -> Question:
    """Rows that match, and sums over both sides."""
    how = "left" if left else "inner"
    return Question(
        name,
        "select count(*) as n, count(w) as matched, sum(v1) as v1, sum(w) as w "
        f"from x {how} join {other} on x.{key} = {other}.id",
        lambda t: (
            t["x"]
            .join(t[other], left_on=key, right_on="id", how=how)
            .select(
                pl.len().alias("n"),
                pl.col("w").count().alias("matched"),
                pl.col("v1").cast(pl.Int64).sum(),
                pl.col("w").cast(pl.Int64).sum(),
            )
        ),
        lambda t: _join_sums(t["x"][[key, "v1"]].merge(t[other], left_on=key, right_on="id", how=how)),
        ("n",),
    )


def _join_sums(found: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame(
        {"n": [len(found)], "matched": [found.w.count()], "v1": [found.v1.sum()], "w": [int(found.w.sum())]}
    )


RESIDENT = (
    _grouped("sum by 100 texts", ("id1",), v1=("sum", "v1")),
    _grouped("sum by 10,000 pairs of texts", ("id1", "id2"), v1=("sum", "v1")),
    _grouped("sum and mean by many texts", ("id3",), v1=("sum", "v1"), v3=("mean", "v3")),
    _grouped("three means by 100 numbers", ("id4",), v1=("mean", "v1"), v2=("mean", "v2"), v3=("mean", "v3")),
    _grouped("three sums by many numbers", ("id6",), v1=("sum", "v1"), v2=("sum", "v2"), v3=("sum", "v3")),
    Question(
        "span by many texts",
        "select id3, max(v1) - min(v2) as span from x group by id3",
        _span_polars,
        _span_pandas,
        ("id3",),
    ),
    Question(
        "two highest by many numbers",
        "select id6, v3 from ("
        "select id6, v3, row_number() over (partition by id6 order by v3 desc) as place from x) t where place <= 2",
        _top_polars,
        _top_pandas,
        ("id6", "v3"),
    ),
    _joined("join with 100 rows", "small", "id4"),
    _joined("join with a hundredth", "medium", "id6"),
    _joined("left join with a hundredth", "medium", "id6", left=True),
    _joined("join with as many rows", "big", "id7"),
    SUMMARY,
)
