"""Many Django processes that read one table hold one table, not one each."""

from pathlib import Path

import pytest

from bench.runner import memory
from bench.runner.owned import Owned

GIB = 1 << 30


def test_readers_of_a_resident_table_cost_one_table_and_copies_one_each(tmp_path: Path) -> None:
    plan = memory.Plan(mib=96, processes=8)
    with Owned() as owned:
        found = memory.measure(owned, tmp_path, plan)
    shared, copies = found["shared"], found["copies"]
    assert (found["mib"], found["processes"], found["scaled_down"]) == (96, 8, None)
    assert shared["table_mb"] == copies["table_mb"] > 100
    assert shared["reader_rss_mb"] > 0.98 * shared["table_mb"], "each reader has touched every byte"
    # The processes' own memory moves, and their share of libraries with whatever else runs on the machine. Eight copies
    # would be eight tables and the worker's.
    assert 0.5 < shared["tables"] < 2
    assert shared["reader_pss_mb"] < shared["table_mb"] / 3
    assert 7.5 < copies["tables"] < 9.5, "each process has its own"
    assert copies["worker_pss_mb"] == 0
    (table,) = memory.tables(found)
    assert [row[0] for row in table.rows] == ["one table resident in the arena", "a Polars data frame in each process"]
    assert [one.target for one in memory.verdicts(found)] == ["memory"]


@pytest.mark.parametrize(
    ("memory_gib", "shm_gib", "mib"),
    [(24, 12, 2048), (22, 4.1, 2048), (22, 3, 1024), (12, 12, 1024), (6, 1, 256), (3, 12, 128)],
)
def test_a_table_that_does_not_fit_is_halved_and_the_reason_is_told(
    memory_gib: float, shm_gib: float, mib: int
) -> None:
    plan, why = memory.fitting(memory.Plan(), int(memory_gib * GIB), int(shm_gib * GIB))
    assert (plan.mib, plan.processes) == (mib, 8)
    if mib == 2048:
        assert why is None
    else:
        assert why.startswith(f"{mib} MiB instead of 2048: 8 copies") and "/dev/shm" in why
    found = {"mib": mib, "processes": 8, "scaled_down": why}
    one = dict.fromkeys(("all_pss_mb", "reader_rss_mb", "reader_pss_mb", "worker_pss_mb", "tables"), 1.0) | {
        "way": "a way"
    }
    (table,) = memory.tables({**found, "shared": one, "copies": one})
    assert (why or "8 Django processes") in table.title
