"""The rows that the terminal, summary.md and report.html show alike: those of the loads and of single calls. What else is
measured has its tables in its own module."""

from dataclasses import dataclass

from . import break_even, percentile
from .figures import Figures, Ratio, compare, curve, find
from .results import Results
from .targets import Verdict

PERCENTILES = ("p(50)", "p(95)", "p(99)", "p(99.9)")


@dataclass(frozen=True)
class Table:
    """A heading, a row of column names, and rows of text. The first `left` columns are words, the others figures."""

    title: str
    columns: list[str]
    rows: list[list[str]]
    left: int = 2


def spread(low: float, high: float, digits: int = 0) -> str:
    """The least and the most of the rounds."""
    return f"{low:,.{digits}f} to {high:,.{digits}f}"


def _percentile(one: Figures, name: str) -> str:
    """A percentile where the requests of the rounds carry it."""
    return _ms(one.latency[name]) if percentile.carried(one.samples, float(name[2:-1]) / 100) else "–"


def _times(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}x"


def _ms(value: float) -> str:
    return f"{value:.1f}" if value < 100 else f"{value:.0f}"


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _against(every: list[Figures], one: Figures) -> Ratio | None:
    pair = one.scenario.pair
    return compare(every, one.scenario.name, pair, one.server, one.kind, one.scenario.lines) if pair else None


def _p99_share(every: list[Figures], one: Figures) -> str:
    """The share of its pair's p99, where the requests of both carry one."""
    if (against := _against(every, one)) is None:
        return ""
    other = find(every, one.scenario.pair or "", one.server, one.kind, one.scenario.lines)
    both = [side for side in (one, other) if side is not None]
    return _share(against["p99"] if all(percentile.carried(side.samples, 0.99) for side in both) else None)


def pairs(every: list[Figures]) -> Table:
    """The frozen workloads: throughput, latency, errors, CPU, memory, and what a CPU second buys."""
    columns = ["server", "endpoint", "req/s", "rounds", "ratio", "p50 ms", "p95 ms", "p99 ms", "p99.9 ms", "errors"]
    columns += ["Django CPU s", "worker CPU s", "Django MB", "worker MB", "req per CPU s", "generator CPU s"]
    rows = []
    for one in every:
        if one.kind != "pair":
            continue
        against = _against(every, one)
        rows.append(
            [
                one.server,
                one.scenario.path,
                f"{one.rps:,.0f}",
                spread(one.rps_from, one.rps_to),
                _times(against["rps"]) if against else "",
                *(_percentile(one, p) for p in PERCENTILES),
                str(one.errors),
                f"{one.django_cpu_s:.1f}",
                f"{one.worker_cpu_s:.1f}",
                f"{one.django_rss_mb:.0f}",
                f"{one.worker_rss_mb:.0f}",
                f"{one.per_cpu_second:,.0f}",
                f"{one.generator_cpu_s:.1f}",
            ]
        )
    return Table("2,000 order lines or 10,000 table rows a request", columns, rows)


def upright(every: list[Figures], server: str) -> Table:
    """The same of one server with a column for each endpoint, so that it fits a terminal of 80 columns."""
    mine = [one for one in every if one.kind == "pair" and one.server == server]
    against = [_against(every, one) for one in mine]
    rows = [
        ["requests/s", *(f"{one.rps:,.0f}" for one in mine)],
        ["  from", *(f"{one.rps_from:,.0f}" for one in mine)],
        ["  to", *(f"{one.rps_to:,.0f}" for one in mine)],
        ["  ratio", *(_times(ratio["rps"]) if ratio else "" for ratio in against)],
        *([f"{p.replace('p(', 'p').rstrip(')')} ms", *(_percentile(one, p) for one in mine)] for p in PERCENTILES),
        ["  p99 ratio", *(_p99_share(every, one) for one in mine)],
        ["errors", *(str(one.errors) for one in mine)],
        ["Django CPU s", *(f"{one.django_cpu_s:.1f}" for one in mine)],
        ["worker CPU s", *(f"{one.worker_cpu_s:.1f}" for one in mine)],
        ["k6 CPU s", *(f"{one.generator_cpu_s:.1f}" for one in mine)],
        ["requests per CPU s", *(f"{one.per_cpu_second:,.0f}" for one in mine)],
        ["Django MB", *(f"{one.django_rss_mb:.0f}" for one in mine)],
        ["worker MB", *(f"{one.worker_rss_mb:.0f}" for one in mine)],
    ]
    return Table(server, ["", *(one.scenario.path.replace("/table/", "/\ntable/") for one in mine)], rows, left=1)


def report_table(results: Results, every: list[Figures]) -> Table:
    """The report by each way of answering, with what a web process holds for it."""
    mine = [one for one in every if one.kind == "report"]
    if not mine:
        return Table("The report", [], [])
    against = [_against(every, one) for one in mine]
    rows = [
        ["requests/s", *(f"{one.rps:,.1f}" for one in mine)],
        ["  rounds", *(spread(one.rps_from, one.rps_to, 1) for one in mine)],
        ["  ratio", *(_times(ratio["rps"]) if ratio else "" for ratio in against)],
        ["p50 ms", *(_percentile(one, "p(50)") for one in mine)],
        ["p99 ms", *(_percentile(one, "p(99)") for one in mine)],
        ["errors", *(str(one.errors) for one in mine)],
        ["Django CPU s", *(f"{one.django_cpu_s:.1f}" for one in mine)],
        ["worker CPU s", *(f"{one.worker_cpu_s:.1f}" for one in mine)],
        ["MB a web process", *(f"{results.web_process_mb[one.scenario.name]:.0f}" for one in mine)],
        ["MB in the worker", *(f"{one.worker_pss_mb:.0f}" if "offload" in one.scenario.name else "" for one in mine)],
    ]
    title = f"Four weeks and a region of {mine[0].scenario.lines:,} order lines a request; {mine[0].users} in flight"
    return Table(title, ["", *(one.scenario.path.replace("/report/", "/\nreport/") for one in mine)], rows, left=1)


def curve_table(every: list[Figures]) -> Table:
    """What offloading brings as the work shrinks and grows."""
    columns = ["server", "lines", "ms of Python saved", "baseline/s", "offload/s", "ratio", "rounds", "p99 share"]
    rows = [
        [
            point.server,
            f"{point.lines:,}",
            f"{point.saved_ms:.2f}",
            f"{point.plain_rps:,.0f}",
            f"{point.offload_rps:,.0f}",
            f"{point.ratio:.2f}x",
            spread(point.ratio_from, point.ratio_to, 2),
            f"{point.offload_p99_ms / point.plain_p99_ms:.2f}",
        ]
        for point in curve(every)
    ]
    return Table("As the work grows", columns, rows, left=1)


def arrival(every: list[Figures]) -> Table:
    """Latencies where requests arrive at the same rate, whatever the endpoint can do."""
    columns = [
        "server",
        "endpoint",
        "arriving/s",
        "answered/s",
        "p50 ms",
        "p99 ms",
        "p99.9 ms",
        "not started",
        "errors",
    ]
    rows = [
        [
            one.server,
            one.scenario.path,
            f"{one.rate or 0:.0f}",
            f"{one.rps:.0f}",
            *(_percentile(one, p) for p in ("p(50)", "p(99)", "p(99.9)")),
            str(one.dropped),
            str(one.errors),
        ]
        for one in every
        if one.kind == "arrival"
    ]
    return Table("At the same arrival rate", columns, rows)


def judged(found: list[Verdict]) -> Table:
    """Verdicts as a table."""
    columns = ["target", "what", "must reach", "measured", "verdict"]
    rows = [[one.target, one.what, one.bound, one.said, one.verdict] for one in found]
    return Table("Targets", columns, rows, left=5)


def micro(found: dict) -> Table:
    """Single calls from Python, and the worker itself."""
    worker, busy = found["worker"], found["saturated"]
    rows = [
        [
            "echo, 64 bytes, cores busy",
            f"{busy['cpu_us']:.1f} us of CPU",
            f"{busy['processes']} processes: {busy['client_us']:.1f} us in them, {busy['worker_us']:.1f} us in the "
            "worker",
        ],
        *([f"compute, {int(n):,} numbers", f"{us:.1f} us", "MsgPack"] for n, us in found["compute_us"].items()),
        *([break_even.row(found["break_even"])] if "break_even" in found else []),
        *([["client: its import", f"{found['import_ms']:.0f} ms", ""]] if "import_ms" in found else []),
        *(
            [["client: memory added to a Django process", f"{found['client_mb']:.1f} MB", ""]]
            if "client_mb" in found
            else []
        ),
        [
            "worker: start to first answer",
            f"{worker['first_answer_ms']:.0f} ms",
            "as a waiting Python client sees it",
        ],
        ["worker: memory when idle", f"{worker['idle_mb']:.1f} MB", "shared memory aside"],
        ["worker: binary, stripped", f"{worker['stripped_mb']:.1f} MB", ""],
    ]
    return Table("Single calls and the worker", ["what", "measured", "beside it"], rows, left=1)


CALL = ["p50 us", "p99 us", "p99.9 us", "p50 from", "to"]


def call(row: dict) -> list[str]:
    """The times of a call, as CALL names them."""
    return [percentile.shown(row[key], 2) for key in ("p50_us", "p99_us", "p999_us", "p50_from_us", "p50_to_us")]


def echoes(found: dict) -> Table:
    """One call from Python beside its peers."""
    echo = found["echo_64_bytes"]
    rows = [[row["way"], row["peer"], *call(row)] for row in echo["rows"]]
    rows += [["-", peer, f"missing: {why}", "", "", "", ""] for peer, why in echo["missing"].items()]
    return Table("Echo of 64 bytes from Python", ["way", "peer", *CALL], rows, left=2)


def size(count: int) -> str:
    for unit, size in (("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count >= size:
            return f"{count / size:.0f} {unit}"
    return f"{count} B"


def of_loads(results: Results, every: list[Figures]) -> list[Table]:
    """The tables of the loads."""
    return [pairs(every), curve_table(every), report_table(results, every), arrival(every)]
