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


def _spread_polars(t: Frames) -> pl.LazyFrame:
    v3 = pl.col("v3")
    return t["x"].group_by("id4", "id5").agg(v3.median().alias("middle"), v3.std().alias("spread"))


def _spread_pandas(t: Frames) -> pd.DataFrame:
    return t["x"].groupby(["id4", "id5"], as_index=False).agg(middle=("v3", "median"), spread=("v3", "std"))


def _related_polars(t: Frames) -> pl.LazyFrame:
    return t["x"].group_by("id2", "id4").agg((pl.corr("v1", "v2") ** 2).alias("r2"))


def _related_pandas(t: Frames) -> pd.DataFrame:
    """From sums: pandas' own correlation of groups makes a frame of each of them."""
    x = t["x"][["id2", "id4", "v1", "v2"]].astype({"v1": "float64", "v2": "float64"})
    x = x.assign(both=x.v1 * x.v2, first=x.v1**2, second=x.v2**2)
    keys = ["id2", "id4"]
    mean = x.groupby(keys, as_index=False).mean()
    shared = mean.both - mean.v1 * mean.v2
    r2 = shared**2 / ((mean["first"] - mean.v1**2) * (mean["second"] - mean.v2**2))
    return mean[keys].assign(r2=r2)


SIX = tuple(f"id{number}" for number in range(1, 7))


def _six_polars(t: Frames) -> pl.LazyFrame:
    groups = t["x"].group_by(*SIX).agg(pl.col("v3").sum(), pl.len().alias("lines"))
    return groups.select(
        pl.len().alias("groups"), pl.col("v3").max().alias("most"), pl.col("lines").cast(pl.Int64).sum()
    )


def _six_pandas(t: Frames) -> pd.DataFrame:
    groups = t["x"].groupby(list(SIX), observed=True, sort=False).agg(v3=("v3", "sum"), lines=("v3", "size"))
    return pd.DataFrame({"groups": [len(groups)], "most": [groups.v3.max()], "lines": [groups.lines.sum()]})


def _joined(name: str, other: str, key: str, left: bool = False, their: str = "id") -> Question:
    """Rows that match, and sums over both sides."""
    how = "left" if left else "inner"
    return Question(
        name,
        "select count(*) as n, count(w) as matched, sum(v1) as v1, sum(w) as w "
        f"from x {how} join {other} on x.{key} = {other}.{their}",
        lambda t: (
            t["x"]
            .join(t[other], left_on=key, right_on=their, how=how)
            .select(
                pl.len().alias("n"),
                pl.col("w").count().alias("matched"),
                pl.col("v1").cast(pl.Int64).sum(),
                pl.col("w").cast(pl.Int64).sum(),
            )
        ),
        lambda t: _join_sums(t["x"][[key, "v1"]].merge(t[other][[their, "w"]], left_on=key, right_on=their, how=how)),
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
    Question(
        "median and deviation by 10,000 pairs of numbers",
        "select id4, id5, median(v3) as middle, stddev(v3) as spread from x group by id4, id5",
        _spread_polars,
        _spread_pandas,
        ("id4", "id5"),
    ),
    Question(
        "correlation by 10,000 pairs",
        "select id2, id4, power(corr(v1, v2), 2) as r2 from x group by id2, id4",
        _related_polars,
        _related_pandas,
        ("id2", "id4"),
    ),
    Question(
        "sum and count by six columns",
        # Nearly every row is a group of its own: what is asked for is looked at, not handed over.
        "select count(*) as groups, max(v3) as most, sum(lines) as lines from "
        f"(select {', '.join(SIX)}, sum(v3) as v3, count(*) as lines from x group by {', '.join(SIX)}) t",
        _six_polars,
        _six_pandas,
        ("groups",),
    ),
    _joined("join with 100 rows", "small", "id4"),
    _joined("join with a hundredth", "medium", "id6"),
    _joined("left join with a hundredth", "medium", "id6", left=True),
    _joined("join with a hundredth by texts", "medium", "id3", their="name"),
    _joined("join with as many rows", "big", "id7"),
    SUMMARY,
)
