"""S5, S6 and S7: molt, DuckDB, Polars, pandas and datafusion-python answer questions over the same Arrow data.

`data` makes the tables, `questions` asks, `engines` answer, `turns` takes turns and compares what they answer. It
runs in a process of its own (`python -m bench.runner.queries`), which has the worker beside it and writes what it has
found as JSON.
"""

from dataclasses import dataclass

#: Two threads each, which most libraries want to know before they are loaded.
ENVIRONMENT = {"POLARS_MAX_THREADS": "2", "TOKIO_WORKER_THREADS": "2", "OMP_NUM_THREADS": "2"}


@dataclass(frozen=True)
class Scale:
    """How much is asked. `handed`: rows of a table that comes with the question, and calls in a turn."""

    rounds: int
    handed: tuple[tuple[int, int], ...]
    resident: int
    huge: int  # bytes
    hands: int
    seconds: float  # what it takes, for the progress line

    @property
    def arena(self) -> int:
        """Bytes: what is put may have half of it, and x, the orders and what both are joined with take 120 a row."""
        return (256 << 20) + max(2 * self.huge, 280 * self.resident, 100 * max(rows for rows, _ in self.handed))


SCALES = {
    "": Scale(
        rounds=5,
        handed=((1_000, 100), (10_000, 50), (100_000, 10), (1_000_000, 2), (10_000_000, 1)),
        resident=10_000_000,
        huge=1 << 30,
        hands=500,
        seconds=420,
    ),
    "--quick": Scale(
        rounds=2,
        handed=((1_000, 20), (10_000, 10), (100_000, 3)),
        resident=1_000_000,
        huge=256 << 20,
        hands=100,
        seconds=25,
    ),
    "--check": Scale(rounds=1, handed=((1_000, 1), (70_000, 1)), resident=200_000, huge=8 << 20, hands=3, seconds=20),
}
