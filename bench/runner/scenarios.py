"""What is measured: the endpoints, and who is compared with whom."""

from dataclasses import dataclass, replace

LINES = 2_000  # of the frozen workload
TABLE_ROWS = 10_000
REPORT_LINES = 5_000_000  # that the report is about: they lie on the server's side


@dataclass(frozen=True)
class Scenario:
    """One endpoint under load. `pair` names the scenario that it is compared with."""

    name: str
    path: str
    pair: str | None = None
    table: bool = False
    lines: int = LINES
    report: bool = False


BASELINE = Scenario("baseline", "/baseline/")
TUNED = Scenario("tuned", "/tuned/", pair="baseline")
OFFLOAD = Scenario("offload", "/offload/", pair="baseline")
BASELINE_TABLE = Scenario("baseline_table", "/baseline/table/", table=True, lines=TABLE_ROWS)
OFFLOAD_TABLE = Scenario("offload_table", "/offload/table/", pair="baseline_table", table=True, lines=TABLE_ROWS)

BASELINE_REPORT = Scenario("baseline_report", "/baseline/report/", lines=REPORT_LINES, report=True)
OFFLOAD_REPORT = replace(BASELINE_REPORT, name="offload_report", path="/offload/report/", pair="baseline_report")
POLARS_REPORT = replace(OFFLOAD_REPORT, name="polars_report", path="/polars/report/")
DUCKDB_REPORT = replace(OFFLOAD_REPORT, name="duckdb_report", path="/duckdb/report/")

# Each group is loaded in turn, A B A B: a machine that slows down meets all members of a group alike.
ORDERS = (BASELINE, OFFLOAD, TUNED)
TABLES = (BASELINE_TABLE, OFFLOAD_TABLE)
REPORTS = (BASELINE_REPORT, OFFLOAD_REPORT, POLARS_REPORT, DUCKDB_REPORT)


def at_lines(lines: int) -> tuple[Scenario, Scenario]:
    """The pair with another number of order lines."""
    return replace(BASELINE, lines=lines), replace(OFFLOAD, lines=lines)
