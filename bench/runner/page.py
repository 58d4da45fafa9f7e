"""summary.html: one file that needs no network, with the charts drawn by plotly."""

from html import escape

import plotly.graph_objects as go

from .figures import Figures, curve, find, servers
from .markdown import how
from .measure import Results
from .scenarios import Settings
from .tables import Table, everything

COLOURS = {
    "baseline": "#8d99ae",
    "tuned": "#e09f3e",
    "offload": "#1b7f79",
    "baseline_table": "#8d99ae",
    "offload_table": "#1b7f79",
}
GROUPS = {"orders": ("baseline", "tuned", "offload"), "tables": ("baseline_table", "offload_table")}
TITLES = {"orders": "Order summary, 2,000 lines", "tables": "Table summary, 10,000 rows"}

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1d2433; background: #fff }
body { max-width: 84rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.7rem } h2 { font-size: 1.2rem; margin-top: 2.5rem }
.wide { overflow-x: auto }
table { border-collapse: collapse; font-size: .87rem; font-variant-numeric: tabular-nums; white-space: nowrap }
th, td { padding: .25rem .7rem; text-align: right; border-bottom: 1px solid #e3e7ee }
th { font-weight: 600; color: #56607a } .word { text-align: left }
.offload td { font-weight: 600 } .missed { color: #b3261e }
.charts { display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 1rem }
@media (max-width: 60rem) { .charts { grid-template-columns: minmax(0, 1fr) } }
"""


def render(machine: dict, settings: Settings, results: Results, every: list[Figures]) -> str:
    """The whole page."""
    charts = [throughput(every, group) for group in GROUPS]
    charts += [distribution(every, group, server) for group in GROUPS for server in servers(every)]
    drawn = [chart for chart in [*charts, growth(every)] if chart.data]
    config = {"displayModeBar": False, "responsive": True}
    divs = [
        chart.to_html(full_html=False, include_plotlyjs=number == 0, config=config)
        for number, chart in enumerate(drawn)
    ]
    facts = "".join(f"<li>{escape(name)}: {escape(str(value))}</li>" for name, value in machine.items())
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>molt under load</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head><body>'
        f"<h1>molt under load</h1><p>{escape(how(settings))}</p>"
        f'<div class="charts">{"".join(f"<div>{div}</div>" for div in divs)}</div>'
        f"{''.join(_table(table) for table in everything(results, every))}"
        f"<h2>Machine</h2><ul>{facts}</ul></body></html>\n"
    )


def _chart(title: str, x: str, y: str) -> go.Figure:
    chart = go.Figure()
    chart.update_layout(
        title=title, template="plotly_white", height=380, margin={"l": 60, "r": 20, "t": 50, "b": 50},
        xaxis_title=x, yaxis_title=y, legend={"orientation": "h", "y": -0.22}, font={"size": 13},
    )  # fmt: skip
    return chart


def throughput(every: list[Figures], group: str) -> go.Figure:
    """Requests per second, one bar for each endpoint under each server."""
    chart = _chart(f"{TITLES[group]}: requests/s", "", "requests/s")
    for name in GROUPS[group]:
        found = [one for server in servers(every) if (one := find(every, name, server)) is not None]
        if found:
            rps = [one.rps for one in found]
            text = [f"{value:,.0f}" for value in rps]
            bar = go.Bar(name=name, x=[one.server for one in found], y=rps, text=text, marker_color=COLOURS[name])
            chart.add_trace(bar)
    return chart


def distribution(every: list[Figures], group: str, server: str) -> go.Figure:
    """Latency by percentile; the axis stretches towards the slowest requests, as in an HdrHistogram plot."""
    chart = _chart(f"{TITLES[group]}: latency under {server}", "share of requests answered within", "ms")
    for name in GROUPS[group]:
        one = find(every, name, server)
        if one is None:
            continue
        grid = sorted((float(key[2:-1]), ms) for key, ms in one.latency.items() if key.startswith("p("))
        chart.add_trace(
            go.Scatter(
                name=name,
                x=[1 / (1 - percent / 100) for percent, _ in grid],
                y=[ms for _, ms in grid],
                customdata=[percent for percent, _ in grid],
                hovertemplate="p%{customdata}: %{y:.1f} ms",
                line={"color": COLOURS[name]},
            )
        )
    shares = (0, 50, 90, 99, 99.9, 99.99)
    ticks = {"tickvals": [1 / (1 - share / 100) for share in shares], "ticktext": [f"{share:g}%" for share in shares]}
    chart.update_xaxes(type="log", **ticks)
    chart.update_yaxes(type="log")
    return chart


def growth(every: list[Figures]) -> go.Figure:
    """The ratio against the Python that it saves, with the line below which offloading does not pay."""
    chart = _chart(
        "As the work grows: offload against baseline",
        "ms of Python CPU saved per request",
        "times the requests/s (1: no gain)",
    )
    points = curve(every)
    for server in dict.fromkeys(point.server for point in points):
        mine = [point for point in points if point.server == server]
        chart.add_trace(
            go.Scatter(
                name=server,
                x=[max(point.saved_ms, 0.001) for point in mine],
                y=[point.ratio for point in mine],
                text=[f"{point.lines:,} lines" for point in mine],
                mode="lines+markers+text",
                textposition="top center",
                cliponaxis=False,
                hovertemplate="%{text}: %{x:.2f} ms saved, %{y:.2f}x",
            )
        )
    if points:
        chart.add_hline(y=1, line_dash="dot")
    chart.update_xaxes(type="log")
    chart.update_yaxes(type="log")
    return chart


def _table(table: Table) -> str:
    def row(cells: list[str], tag: str) -> str:
        kinds = " ".join(
            kind for kind in ("offload", "missed") if any(cell.strip("/").startswith(kind) for cell in cells)
        )
        inner = "".join(
            f"<{tag}{' class=word' if number < table.left else ''}>{escape(cell)}</{tag}>"
            for number, cell in enumerate(cells)
        )
        return f'<tr class="{kinds}">{inner}</tr>'

    rows = "".join(row(cells, "td") for cells in table.rows)
    return f'<h2>{escape(table.title)}</h2><div class="wide"><table>{row(table.columns, "th")}{rows}</table></div>'
