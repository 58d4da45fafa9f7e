"""Seeded Arrow tables: order lines for S6, and those of the h2o.ai database benchmark's kind for S7."""

import numpy as np
import pyarrow as pa

SEED = 1
BATCH = 1 << 20
GROUPS = 100  # values of a column with few of them; one with many has a GROUPS-th of the rows
REGIONS = ("central", "east", "north", "northeast", "northwest", "south", "southwest", "west")
ZONES = ("inland", "coast", "highland", "coast", "highland", "coast", "inland", "inland")
CATEGORIES = ("books", "clothing", "electronics", "garden", "grocery", "sports", "tools", "toys")


def regions() -> pa.Table:
    """Eight regions with their zones."""
    return pa.table({"region": REGIONS, "zone": ZONES})


def orders(rows: int) -> pa.Table:
    """Order lines: region, category, qty, price."""
    random = np.random.default_rng([SEED, 1])
    columns = {
        "region": pa.array(REGIONS).take(pa.array(random.integers(0, len(REGIONS), rows))),
        "category": pa.array(CATEGORIES).take(pa.array(random.integers(0, len(CATEGORIES), rows))),
        "qty": pa.array(random.integers(1, 61, rows, dtype=np.int32)),
        "price": pa.array(random.integers(100, 100_000, rows) / 100),
    }
    return pa.table(columns)


def many(rows: int) -> dict[str, pa.Table]:
    """`x`, the table that is asked about, and what it is joined with: `small`, `medium` and `big`."""
    random = np.random.default_rng([SEED, 2])
    distinct = max(1, rows // GROUPS)
    few, lots = _names("id", GROUPS, 3), _names("id", distinct, 10)
    batches = [_x(random, start, min(BATCH, rows - start), few, lots) for start in range(0, rows, BATCH)]
    return {
        "x": pa.Table.from_batches(batches),
        "small": _dimension(random, GROUPS),
        "medium": _named(_dimension(random, distinct), lots),
        "big": _dimension(random, rows),
    }


def _x(random: np.random.Generator, start: int, rows: int, few: pa.Array, lots: pa.Array) -> pa.RecordBatch:
    columns = {
        "id1": few.take(pa.array(random.integers(0, len(few), rows))),
        "id2": few.take(pa.array(random.integers(0, len(few), rows))),
        "id3": lots.take(pa.array(random.integers(0, len(lots), rows))),
        "id4": random.integers(1, len(few) + 1, rows, dtype=np.int32),
        "id5": random.integers(1, len(few) + 1, rows, dtype=np.int32),
        "id6": random.integers(1, len(lots) + 1, rows, dtype=np.int32),
        "id7": np.arange(start + 1, start + rows + 1, dtype=np.int32),
        "v1": random.integers(1, 6, rows, dtype=np.int32),
        "v2": random.integers(1, 16, rows, dtype=np.int32),
        "v3": np.round(random.random(rows) * 100, 6),
    }
    return pa.record_batch(columns)


def _dimension(random: np.random.Generator, keys: int) -> pa.Table:
    """Nine tenths of the keys 1 to `keys`, shuffled, each with a weight."""
    kept = random.permutation(keys)[: max(1, keys * 9 // 10)].astype(np.int32) + 1
    return pa.table({"id": kept, "w": random.integers(1, 1_000, len(kept), dtype=np.int32)})


def _named(dimension: pa.Table, names: pa.Array) -> pa.Table:
    """The same with the keys as texts too."""
    return dimension.append_column("name", names.take(pa.array(dimension["id"].to_numpy() - 1)))


def _names(prefix: str, count: int, digits: int) -> pa.Array:
    return pa.array([f"{prefix}{number:0{digits}}" for number in range(1, count + 1)])
