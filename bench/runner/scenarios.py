"""What is measured: the endpoints, who is compared with whom, and how long a run loads each."""

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


@dataclass(frozen=True)
class Settings:
    """How much is measured. Times in seconds, each per load."""

    servers: tuple[str, ...]
    users: int
    rounds: int
    seconds: float
    warm_up: float
    curve_lines: tuple[int, ...]
    curve_rounds: int
    curve_seconds: float
    curve_servers: tuple[str, ...]
    arrival_share: float | None  # of the baseline's own requests per second; None leaves the arrival-rate pair out
    micro: bool
    transport: str | None  # its scale, see transport.py; None leaves it out
    questions: str | None  # their scale, see queries/; None leaves them out
    memory_mib: int  # of the resident table that many processes read; 0 leaves it out
    report_lines: int  # 0 leaves the report out
    report_users: int
    report_rounds: int
    report_seconds: float


DEMO = Settings(
    servers=("gunicorn", "granian"),
    users=16,
    rounds=2,
    seconds=4,
    warm_up=1,
    curve_lines=(20, 200, 10_000),
    curve_rounds=1,
    curve_seconds=3,
    curve_servers=("gunicorn",),
    arrival_share=None,
    micro=False,
    transport=None,
    questions=None,
    memory_mib=0,
    report_lines=REPORT_LINES,
    report_users=8,
    report_rounds=2,
    report_seconds=2,
)
RUN = Settings(
    servers=("gunicorn", "granian"),
    users=16,
    rounds=5,
    seconds=10,
    warm_up=3,
    curve_lines=(20, 200, 10_000),
    curve_rounds=3,
    curve_seconds=5,
    curve_servers=("gunicorn", "granian"),
    arrival_share=0.6,
    micro=True,
    transport="",
    questions="",
    memory_mib=512,
    report_lines=REPORT_LINES,
    report_users=8,
    report_rounds=5,
    report_seconds=8,
)
QUICK = replace(
    RUN,
    rounds=2,
    seconds=4,
    warm_up=1,
    curve_rounds=1,
    curve_seconds=3,
    curve_servers=("gunicorn",),
    transport="--quick",
    questions="--quick",
    report_rounds=2,
    report_seconds=3,
)
