"""pandas inside the view: words as categories, money as integers."""

from functools import partial

import pandas as pd
import pyarrow as pa
from orders.table_summary import MIN_QTY, zones

from . import tables


def words(column: pa.ChunkedArray) -> pd.Categorical:
    """Words as categories."""
    return pd.Categorical.from_codes(*tables.codes(column))


def ask(table: pa.Table) -> list[tables.Row]:
    """Filter, group by region, join the few groups, group by zone."""
    frame = pd.DataFrame(
        {
            "region": words(table["region"]),
            "category": words(table["category"]),
            "pieces": table["qty"].chunk(0).to_numpy().astype("int64"),
            "price": table["price"].chunk(0).to_numpy(),
            "discount": table["discount"].chunk(0).to_numpy(),
        },
        copy=False,
    )
    frame = frame[frame["pieces"] >= MIN_QTY]
    gross = frame["pieces"] * frame["price"]
    frame = frame.assign(lines=1, gross=gross, net=gross * (10_000 - frame["discount"]))
    sums = ["lines", "pieces", "gross", "net"]
    groups = frame.groupby(["region", "category"], observed=True, sort=False)[sums].sum().reset_index()
    groups["zone"] = groups["region"].astype(str).map(zones())
    groups = groups.groupby(["zone", "category"], observed=True, sort=False)[sums].sum().reset_index()
    return tables.ordered(groups.itertuples(index=False, name=None))


answer = partial(tables.answer, ask=ask)
