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
    # The processes' own memory moves a little; eight copies would be 8 tables and the worker's.
    assert 0.95 < found["tables"] < 1.5
    assert found["reader_pss_mb"] < table / 4
    assert [row[0] for row in memory_table(found).rows] == ["one table", "8 Django processes and the worker together"]
