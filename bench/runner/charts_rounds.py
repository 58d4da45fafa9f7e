"""Django's own endpoints: requests a second, latency distributions, the curve as the work grows, and the report."""

import plotly.graph_objects as go

from . import percentile
from .charts import MOLT, PLAIN, TUNED, Chart, around, bar_text, blank, colour, level, line
from .figures import Figures, curve, find, servers
from .percentile import BEYOND

SIDES = {
    "baseline": PLAIN, "tuned": TUNED, "offload": MOLT, "baseline_table": PLAIN, "offload_table": MOLT,
    "baseline_report": PLAIN, "offload_report": MOLT, "polars_report": "Polars", "duckdb_report": "DuckDB",
}  # fmt: skip
"""Who answers at an endpoint."""
GROUPS = {"orders": ("baseline", "tuned", "offload"), "table": ("baseline_table", "offload_table")}
TITLES = {"orders": "2,000 order lines as JSON", "table": "10,000 rows as Arrow"}
TAKEN = "The endpoints are loaded in turn under the same server; the whiskers are the slowest and the fastest round."


def charts(every: list[Figures]) -> list[Chart]:
    """All of them, without those that would be empty."""
    made = [throughput(every, group) for group in GROUPS]
    made += [distribution(every, group, server) for group in GROUPS for server in servers(every)]
    return [chart for chart in made if chart.figure.data]


def throughput(every: list[Figures], group: str) -> Chart:
    """Requests per second, a bar for each endpoint under each server."""
    figure = blank("", "requests/s")
    for name in GROUPS[group]:
        found = [one for server in servers(every) if (one := find(every, name, server)) is not None]
        if found:
            figure.add_trace(_bars(name, [one.server for one in found], found))
    return Chart(f"throughput-{group}", f"Requests/s: {TITLES[group]}", TAKEN, figure)


def _bars(name: str, x: list[str], found: list[Figures]) -> go.Bar:
    rps = [one.rps for one in found]
    spread = around(rps, (one.rps_from for one in found), (one.rps_to for one in found))
    return go.Bar(
        name=SIDES[name], x=x, y=rps, error_y=spread, **bar_text(rps), marker_color=colour(SIDES[name]),
        hovertemplate="%{x}: %{y:,.1f}/s",
    )  # fmt: skip


def distribution(every: list[Figures], group: str, server: str) -> Chart:
    """Latency by percentile; the axis stretches towards the slowest requests, as in an HdrHistogram plot."""
    figure = blank("share of requests answered within", "ms", y_log=True)
    samples = []
    for name in GROUPS[group]:
        one = find(every, name, server)
        if one is None:
            continue
        samples.append(f"{one.samples:,} of {SIDES[name]}")
        grid = percentiles(one)
        figure.add_trace(
            line(
                SIDES[name],
                [1 / (1 - percent / 100) for percent, _ in grid],
                [ms for _, ms in grid],
                customdata=[percent for percent, _ in grid],
                hovertemplate="p%{customdata}: %{y:,.1f} ms",
                mode="lines",
            )
        )
    shares = (0, 50, 90, 99, 99.9, 99.99)
    ticks = {"tickvals": [1 / (1 - share / 100) for share in shares], "ticktext": [f"{share:g}%" for share in shares]}
    figure.update_xaxes(type="log", tickmode="array", **ticks)
    says = (
        "Medians of the rounds' percentiles, with the same number of requests in flight for all: from "
        f"{', '.join(samples)} "
        f"requests. A curve ends where fewer than {BEYOND} requests were slower."
    )
    return Chart(f"distribution-{group}-{server}", f"Latency under {server}: {TITLES[group]}", says, figure)


def percentiles(one: Figures) -> list[tuple[float, float]]:
    """The percentiles that the requests carry, from the quickest to the slowest."""
    grid = sorted((float(key[2:-1]), ms) for key, ms in one.latency.items() if key.startswith("p("))
    return [(percent, ms) for percent, ms in grid if percentile.carried(one.samples, percent / 100)]


def growth(every: list[Figures]) -> list[Chart]:
    """The ratio against the Python that it saves, with the line below which offloading does not pay."""
    figure = blank("ms of Python CPU saved a request", "times plain Python's requests/s", x_log=True, y_log=True)
    points = curve(every)
    for server in dict.fromkeys(point.server for point in points):
        mine = [point for point in points if point.server == server]
        ratios = [point.ratio for point in mine]
        figure.add_trace(
            go.Scatter(
                name=f"under {server}", x=[max(point.saved_ms, 0.001) for point in mine], y=ratios,
                error_y=around(ratios, (one.ratio_from for one in mine), (one.ratio_to for one in mine)),
                text=[f"{point.lines:,} lines" for point in mine], mode="lines+markers+text", textposition="top left",
                line={"color": colour(MOLT), "dash": "solid" if server == "gunicorn" else "dash"}, cliponaxis=False,
                hovertemplate="%{text}: %{x:.2f} ms saved, %{y:.2f}x",
            )
        )  # fmt: skip
    if not points:
        return []
    figure.add_trace(level("1x: no gain below", (max(point.saved_ms, 0.001) for point in points), 1.0))
    says = (
        "molt's requests/s against plain Python's with fewer and more order lines a request; whiskers from the slowest "
        "against the fastest round to the fastest against the slowest."
    )
    return [Chart("growth", "What offloading brings as the work grows", says, figure, wide=True)]


def report(every: list[Figures], web_process_mb: dict[str, float]) -> list[Chart]:
    """Questions about the order lines: requests a second, and what a web process holds for them."""
    mine = [one for one in every if one.kind == "report"]
    if not mine:
        return []
    names = [SIDES[one.scenario.name] for one in mine]
    colours = [colour(name) for name in names]
    rps = [one.rps for one in mine]
    speed = blank("", "requests/s", height=360)
    speed.add_bar(
        name="requests/s", x=names, y=rps, marker_color=colours, **bar_text(rps, 1),
        error_y=around(rps, (one.rps_from for one in mine), (one.rps_to for one in mine)),
    )  # fmt: skip
    held = [web_process_mb[one.scenario.name] for one in mine]
    memory = blank("", "MB a web process", height=360)
    memory.add_bar(name="MB a web process", x=names, y=held, marker_color=colours, **bar_text(held))
    lines = f"{mine[0].scenario.lines:,} order lines"
    return [
        Chart("report-speed", f"A report over {lines}: requests/s",
              f"Four weeks and a region of {lines} a request, {mine[0].users} in flight; plain Python asks SQLite "
              "through the ORM, molt a "
              "resident table, Polars and DuckDB what each web process holds.", speed),
        Chart("report-memory", "The same: memory of a web process",
              "Proportional set size after the loads, so that a page that several processes share counts once; molt's "
              "table itself lies "
              f"in the worker ({_worker_mb(mine):,.0f} MB).", memory),
    ]  # fmt: skip


def _worker_mb(mine: list[Figures]) -> float:
    return next((one.worker_pss_mb for one in mine if "offload" in one.scenario.name), 0.0)
