"""The report's tables, generated from a seed and written to Parquet.

An order line is `day`, `customer`, `category`, `qty` and `net`, what was paid for it. A customer is `id`, `name` and
`region`. `manage.py report_data` makes them in the folder `settings.REPORT_DATA`, once.
"""

from collections.abc import Callable, Iterator
from datetime import date

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from orders.generate import CATEGORIES
from orders.report.asked import REGIONS
from orders.report.files import Whole, customers_path, lines_path

SEED = 1
FIRST_DAY = date(2024, 1, 1)
DAYS = 731  # two years, the first of them a leap year
LINES_A_CUSTOMER = 250
#: Rows per batch of the order lines' file.
BATCH = 1 << 18

Progress = Callable[[int, int], object]

CUSTOMERS = pa.schema(
    [
        pa.field("id", pa.int32(), nullable=False),
        pa.field("name", pa.string(), nullable=False),
        pa.field("region", pa.string(), nullable=False),
    ]
)
LINES = pa.schema(
    [
        pa.field("day", pa.date32(), nullable=False),
        pa.field("customer", pa.int32(), nullable=False),
        pa.field("category", pa.dictionary(pa.int8(), pa.string()), nullable=False),
        pa.field("qty", pa.int16(), nullable=False),
        pa.field("net", pa.decimal128(11, 2), nullable=False),
    ]
)


def customers(lines: int, seed: int = SEED) -> pa.Table:
    """The customers of so many order lines."""
    count = max(10, lines // LINES_A_CUSTOMER)
    random = np.random.default_rng([seed, 1])
    ids = np.arange(1, count + 1, dtype=np.int32)
    names = pa.array([f"C{number:06}" for number in ids])
    regions = pa.array(REGIONS).take(pa.array(random.integers(0, len(REGIONS), count)))
    return pa.table([ids, names, regions], schema=CUSTOMERS)


def line_batches(lines: int, seed: int = SEED) -> Iterator[pa.RecordBatch]:
    """Order lines in the order in which they came: by day, and within a day at random."""
    random = np.random.default_rng([seed, 2])
    count = max(10, lines // LINES_A_CUSTOMER)
    categories = pa.array(CATEGORIES)
    first = (FIRST_DAY - date(1970, 1, 1)).days
    for start in range(0, lines, BATCH):
        rows = min(BATCH, lines - start)
        day = (first + np.arange(start, start + rows, dtype=np.int64) * DAYS // lines).astype("datetime64[D]")
        qty = random.integers(1, 61, rows, dtype=np.int16)
        # Cents of a piece, less a discount of 0 to 40 %: whole cents, so that every sum is exact.
        cents = qty * random.integers(100, 100_000, rows) * random.integers(60, 101, rows) // 100
        # A few customers buy much: the square of a uniform number prefers the low ones.
        customer = (random.random(rows) ** 2 * count).astype(np.int32) + 1
        category = pa.DictionaryArray.from_arrays(random.integers(0, len(CATEGORIES), rows, dtype=np.int8), categories)
        yield pa.record_batch(
            [pa.array(day), pa.array(customer), category, pa.array(qty), _decimals(cents)], schema=LINES
        )


def _decimals(cents: np.ndarray) -> pa.Array:
    """Whole cents as decimals: each as two words of 64 bits, the low one first; none is negative."""
    words = np.zeros((len(cents), 2), dtype=np.int64)
    words[:, 0] = cents
    return pa.Array.from_buffers(LINES.field("net").type, len(cents), [None, pa.py_buffer(words)])


def write_parquet(lines: int, progress: Progress) -> None:
    """Makes the Parquet files; whoever looks sees each whole or not at all."""
    lines_path().parent.mkdir(parents=True, exist_ok=True)
    with Whole(customers_path()) as half:
        pq.write_table(customers(lines), half)
    done = 0
    with Whole(lines_path()) as half, pq.ParquetWriter(half, LINES, compression="zstd") as writer:
        for batch in line_batches(lines):
            writer.write_batch(batch, row_group_size=BATCH)
            done += len(batch)
            progress(done, lines)


def written_lines() -> int:
    """How many order lines the Parquet file has; 0: there is none."""
    return pq.ParquetFile(lines_path()).metadata.num_rows if lines_path().exists() else 0
