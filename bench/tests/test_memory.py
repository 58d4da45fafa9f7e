"""Eight Django processes that read one table hold one table, not eight."""

from pathlib import Path

from bench.runner import memory
from bench.runner.owned import Owned
from bench.runner.tables import memory_table

MIB = 96


def test_eight_readers_cost_one_table(tmp_path: Path) -> None:
    with Owned() as owned:
        found = memory.measure(owned, tmp_path, MIB, 8)
    table = found["table_mb"]
    assert table > 100
    assert found["reader_rss_mb"] > 0.98 * table, "each reader has touched every byte"
    # The processes' own memory moves, and their share of libraries with whatever else runs on the machine. Eight copies
    # would be eight tables and the worker's.
    assert 0.5 < found["tables"] < 2
    assert found["reader_pss_mb"] < table / 3
    assert [row[0] for row in memory_table(found).rows] == ["one table", "8 Django processes and the worker together"]
