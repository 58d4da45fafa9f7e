"""The rows that the terminal, summary.md and summary.html show alike."""

from dataclasses import dataclass

from . import break_even, percentile
from .figures import Figures, Ratio, compare, curve
from .measure import Results
from .targets import Verdict, verdicts

PERCENTILES = ("p(50)", "p(95)", "p(99)", "p(99.9)")


@dataclass(frozen=True)
class Table:
    """A heading, a row of column names, and rows of text. The first `left` columns are words, the others figures."""

    title: str
    columns: list[str]
    rows: list[list[str]]
    left: int = 2


def _times(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}x"


def _ms(value: float) -> str:
    return f"{value:.1f}" if value < 100 else f"{value:.0f}"


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _against(every: list[Figures], one: Figures) -> Ratio | None:
    pair = one.scenario.pair
    return compare(every, one.scenario.name, pair, one.server, one.kind, one.scenario.lines) if pair else None


def pairs(every: list[Figures]) -> Table:
    """The frozen workloads: throughput, latency, errors, CPU, memory, and what a CPU second buys."""
    columns = ["server", "endpoint", "req/s", "ratio", "p50 ms", "p95 ms", "p99 ms", "p99.9 ms", "errors"]
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
                _times(against["rps"]) if against else "",
                *(_ms(one.latency[p]) for p in PERCENTILES),
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
        ["  ratio", *(_times(ratio["rps"]) if ratio else "" for ratio in against)],
        *([f"{p.replace('p(', 'p').rstrip(')')} ms", *(_ms(one.latency[p]) for one in mine)] for p in PERCENTILES),
        ["  p99 ratio", *(_share(ratio["p99"]) if ratio else "" for ratio in against)],
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
        ["  ratio", *(_times(ratio["rps"]) if ratio else "" for ratio in against)],
        ["p50 ms", *(_ms(one.latency["p(50)"]) for one in mine)],
        ["p99 ms", *(_ms(one.latency["p(99)"]) for one in mine)],
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
    columns = ["server", "lines", "ms of Python saved", "baseline/s", "offload/s", "ratio", "p99 share"]
    rows = [
        [
            point.server,
            f"{point.lines:,}",
            f"{point.saved_ms:.2f}",
            f"{point.plain_rps:,.0f}",
            f"{point.offload_rps:,.0f}",
            f"{point.ratio:.2f}x",
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
            *(_ms(one.latency[p]) for p in ("p(50)", "p(99)", "p(99.9)")),
            str(one.dropped),
            str(one.errors),
        ]
        for one in every
        if one.kind == "arrival"
    ]
    return Table("At the same arrival rate", columns, rows)


def targets(results: Results, every: list[Figures]) -> Table:
    """The targets that this run can judge."""
    return judged(verdicts(results, every))


def judged(found: list[Verdict]) -> Table:
    """Verdicts as a table."""
    columns = ["target", "what", "must reach", "measured", "verdict"]
    rows = [[one.target, one.what, one.bound, f"{one.measured:.3g}{one.unit}", one.verdict] for one in found]
    return Table("Targets", columns, rows, left=5)


def micro(found: dict) -> Table:
    """Single calls from Python, and the worker itself."""
    worker, busy = found["worker"], found["saturated"]
    rows = [
        [
            "echo, 64 bytes, cores busy",
            f"{busy['cpu_us']:.1f} us of CPU",
            f"{busy['processes']} processes: {busy['client_us']:.1f} us in them, {busy['worker_us']:.1f} us in the worker",
        ],
        *([f"compute, {int(n):,} numbers", f"{us:.1f} us", "MsgPack"] for n, us in found["compute_us"].items()),
        *([break_even.row(found["break_even"])] if "break_even" in found else []),
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


def _call(row: dict) -> list[str]:
    return [percentile.shown(row[key], 2) for key in ("p50_us", "p99_us", "p999_us", "p50_from_us", "p50_to_us")]


def echoes(found: dict) -> Table:
    """One call from Python beside its peers."""
    echo = found["echo_64_bytes"]
    rows = [[row["way"], row["peer"], *_call(row)] for row in echo["rows"]]
    rows += [["-", peer, f"missing: {why}", "", "", "", ""] for peer, why in echo["missing"].items()]
    return Table("Echo of 64 bytes from Python", ["way", "peer", *CALL], rows, left=2)


def questions(found: dict) -> list[Table]:
    """S5, S6 and S7: milliseconds of a question, a column for each engine."""

    def rows(part: list[dict], label: str) -> tuple[list[str], list[list[str]]]:
        names = list(dict.fromkeys(row["engine"] for row in part))
        grouped: dict[str, dict[str, dict]] = {}
        for row in part:
            grouped.setdefault(label.format(**row), {})[row["engine"]] = row
        return names, [[what, *(_median(mine.get(name)) for name in names)] for what, mine in grouped.items()]

    threads = f"{found['threads']} threads each, ms: median of {found['rounds']} rounds"
    out = []
    for part, title, label in (
        ("handed", "Filter, join, group and sort a table that is handed over each time", "{rows:,} rows"),
        ("resident", "Questions over {rows:,} resident rows", "{question}"),
    ):
        names, lines = rows(found[part], label)
        out.append(Table(f"{title.format(**found[part][0])}; {threads}", ["", *names], lines, 1))
    handing = found["handing"]
    lines = [
        [name, _bytes(size), f"{handing['us'][name]:,.0f}", str(handing["copied_bytes"][name])]
        for name, size in handing["bytes"].items()
    ]
    title = "Handing a resident table to a query that wants one row"
    out.append(Table(title, ["table", "size", "us", "bytes copied"], lines, 1))
    missing = [[name, why] for name, why in found["missing"].items()]
    return out + ([Table("Engines that are missing", ["engine", "why"], missing, 2)] if missing else [])


def _median(row: dict | None) -> str:
    return "–" if row is None else f"{row['ms']:,.2f}"


def memory_table(found: dict) -> Table:
    """What a resident table costs that many processes read."""
    rows = [
        ["one table", f"{found['table_mb']:.0f}", ""],
        [
            f"{found['processes']} Django processes and the worker together",
            f"{found['all_pss_mb']:.0f}",
            f"{found['tables']:.2f} tables; each process maps {found['reader_rss_mb']:.0f} MB, its share is "
            f"{found['reader_pss_mb']:.0f} MB",
        ],
    ]
    return Table(
        "Memory that reading one resident table adds (proportional set size)", ["what", "MB", "beside it"], rows, 1
    )


PARTS = {
    "hot": "Rust to Rust, 64 bytes, both sides spinning",
    "asleep": "Rust to Rust, 64 bytes, both sides asleep",
    "sizes": "Rust to Rust, one client, longer payloads",
    "clients": "Rust to Rust, 64 bytes, more clients",
    "spinning": "Cores busy, with spinning and without",
}


def transport(found: dict) -> list[Table]:
    """The transport beside its peers: a table a part, and what is missing."""
    out = []
    for part, title in PARTS.items():
        rows = [
            [
                row["peer"], _bytes(row["size"]), str(row["clients"]), *_call(row),
                f"{row['calls_per_s']:,.0f}", f"{row['cpu_us']:.2f}",
            ]
            for row in found["rows"]
            if row["part"] == part
        ]  # fmt: skip
        columns = ["peer", "payload", "clients", *CALL, "calls/s", "CPU us a call"]
        out.append(Table(title, columns, rows))
    if placing := found["placing"]:
        figures = [
            f"{placing[key]:.2f}" for key in ("table_gb_per_s", "memcpy_gb_per_s", "ratio", "ratio_from", "ratio_to")
        ]
        columns = ["table", "placed GB/s", "memcpy GB/s", "ratio", "from", "to"]
        out.append(Table("Placing a table in the arena", columns, [[_bytes(placing["bytes"]), *figures]]))
    missing = [[one["peer"], one["part"], one["why"]] for one in found["missing"]]
    out.append(Table("Peers that are missing", ["peer", "where", "why"], missing, left=3))
    return [table for table in out if table.rows]


def _bytes(count: int) -> str:
    for unit, size in (("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count >= size:
            return f"{count / size:.0f} {unit}"
    return f"{count} B"


def everything(results: Results, every: list[Figures]) -> list[Table]:
    """All tables that have rows."""
    out = [pairs(every), curve_table(every), report_table(results, every), arrival(every), targets(results, every)]
    if results.micro:
        out += [echoes(results.micro), micro(results.micro)]
    if results.questions:
        out += questions(results.questions)
    if results.memory:
        out.append(memory_table(results.memory))
    if results.transport:
        out += transport(results.transport)
    return [table for table in out if table.rows]
