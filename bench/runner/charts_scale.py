"""What things cost as they grow: bytes, clients, requests in flight, rows; and from where on offloading pays."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import plotly.graph_objects as go

from . import ablation
from .charts import (
    INK,
    MOLT,
    PLAIN,
    TUNED,
    Chart,
    around,
    bar_text,
    blank,
    colour,
    level,
    line,
    marks,
    panels,
    size,
    some,
)
from .percentile import BEYOND


def _curves(figure: go.Figure, rows: list[dict], side: str, x: str, y: str, unit: str) -> None:
    """A curve a side, with the rounds as error bars where the rows have them."""
    stem, _, tail = y.rpartition("_")
    least, most = (f"{stem}_from_{tail}", f"{stem}_to_{tail}") if stem else (f"from_{y}", f"to_{y}")
    for name in dict.fromkeys(row[side] for row in rows):
        mine = sorted((row for row in rows if row[side] == name), key=lambda row: row[x])
        values = [row[y] for row in mine]
        spread = around(values, (row[least] for row in mine), (row[most] for row in mine)) if least in mine[0] else None
        hover = f"%{{x:,}}: %{{y:,.2f}} {unit}"
        figure.add_trace(line(name, [row[x] for row in mine], values, error_y=spread, hovertemplate=hover))


def _against(
    name: str, title: str, says: str, rows: list[dict], axes: tuple[str, str], keys: tuple[str, str, str, str],
    ticks: Callable[[Any], str],
) -> Chart:  # fmt: skip
    """A chart of curves over what grows. `keys`: side, x, y and y's unit."""
    figure = blank(*axes, x_log=True, y_log=True)
    _curves(figure, rows, *keys)
    figure.update_xaxes(**marks((row[keys[1]] for row in rows), ticks))
    return Chart(name, title, says, figure)


def without_shared_memory(found: dict) -> list[Chart]:
    """The ablation: the same entries behind shared memory and behind a plain socket."""
    taken = (
        "One Python caller, the same entries in the worker and behind a plain Unix socket, in turn; medians of "
        f"{some(found['rounds'], 'round')}, whiskers from the least to the largest."
    )
    out = []
    for entry, what, x, ticks in (
        ("echo", "echo", "bytes", size),
        ("order_summary", "order summary", "lines", "{:,}".format),
    ):
        rows = [row for row in found["rows"] if row["entry"] == entry]
        if rows:
            says = f"{taken} {gain(rows, x, ticks)}"
            title = f"What shared memory itself buys: {what}"
            axes = ("bytes there and back" if x == "bytes" else "order lines", "microseconds a call")
            out.append(_against(f"ablation-{entry}", title, says, rows, axes, ("way", x, "p50_us", "us"), ticks))
    return out


def gain(rows: list[dict], x: str, said: Callable[[int], str]) -> str:
    """Where the socket is the faster of the two."""
    by: dict[int, dict[str, float]] = {}
    for row in rows:
        by.setdefault(row[x], {})[row["way"]] = row["p50_us"]
    lost = [said(count) for count, ways in by.items() if ways[ablation.SOCKET] < ways[ablation.MOLT]]
    if not lost:
        return "Shared memory is faster at every size."
    return f"The socket is faster at {', '.join(lost)}{' lines' if x == 'lines' else ''}."


def transport(found: dict) -> list[Chart]:
    """Rust to Rust: payloads and clients."""
    sizes = [row for row in found["rows"] if row["part"] == "sizes"]
    clients = [row for row in found["rows"] if row["part"] == "clients"]
    taken = "A client and a server process in Rust, written and read byte by byte on both sides, the peers in turn"
    out = []
    if sizes:
        says = f"{taken}; medians of {some(sizes[0]['rounds'], 'round')}, whiskers from the least to the largest median of a round."
        axes = ("bytes there and back", "microseconds a call")
        keys = ("peer", "size", "p50_us", "us")
        out.append(_against("transport-sizes", "The transport by payload", says, sizes, axes, keys, size))
    if clients:
        says = f"{taken}; 64 bytes, waiting as one waits in production; CPU stands in the table."
        keys = ("peer", "clients", "calls_per_s", "/s")
        axes = ("client threads", "calls/s")
        out.append(_against("transport-clients", "The transport by clients", says, clients, axes, keys, "{:,}".format))
    return out


def in_flight(found: dict) -> list[Chart]:
    """Calls a second, latency and CPU against the calls on their way; the same against client processes."""
    out = []
    for number, (series, by) in enumerate(
        [*((one, "in_flight") for one in found["series"]), (found["clients"], "clients")]
    ):
        points = sorted(series["points"], key=lambda point: point[by])
        x = [point[by] for point in points]
        figure = panels(("calls/s", "microseconds"), 400, x_log=True, horizontal_spacing=0.08)
        figure.add_trace(
            line(
                "calls/s",
                x,
                [point["calls_per_s"] for point in points],
                line={"color": colour(MOLT)},
                marker={"color": colour(MOLT)},
            ),
            1,
            1,
        )
        for name, (key, shade) in MICROSECONDS.items():
            us = [point[key] for point in points]
            figure.add_trace(line(name, x, us, line={"color": shade}, marker={"color": shade}), 1, 2)
        what = "calls in flight" if by == "in_flight" else "client processes"
        figure.update_xaxes(title=what, **marks(x, "{:,}".format))
        figure.update_yaxes(rangemode="tozero", col=1)
        figure.update_yaxes(type="log", dtick="D2", col=2)
        how = (
            "One event loop keeps so many calls on their way"
            if by == "in_flight"
            else "So many processes call, each one call after the other"
        )
        says = (
            f"{how}; medians of {some(found['rounds'], 'round')}. CPU is that of clients and worker together; a p99 is drawn "
            f"where {BEYOND} calls "
            "at least were slower."
        )
        out.append(
            Chart(
                f"in-flight-{number}",
                f"{series['name'].capitalize()}: {what}".replace(", client processes:", ":"),
                says,
                figure,
                wide=True,
            )
        )
    return out


MICROSECONDS = {"p50": ("p50_us", colour(MOLT)), "p99": ("p99_us", INK), "CPU a call": ("cpu_us", colour(PLAIN))}


def handed(found: dict) -> list[Chart]:
    """A question over a table that comes with it, from a thousand rows to ten million."""
    says = (
        f"Filter, join, group and sort a table that is handed over with each question, {found['threads']} threads "
        "each; medians of "
        f"{some(found['rounds'], 'round')}, whiskers from the least to the largest. Answers were compared first."
    )
    axes, keys = ("rows handed over", "ms"), ("engine", "rows", "ms", "ms")
    rows = found["handed"]
    if not rows:
        return []
    return [replace(_against("rows", "Questions as rows grow", says, rows, axes, keys, "{:,}".format), wide=True)]


def resident(found: dict) -> list[Chart]:
    """The questions over resident rows: a row a question, a mark an engine."""
    rows = found["resident"]
    if not rows:
        return []
    questions = list(dict.fromkeys(row["question"] for row in rows))
    figure = blank("ms", "", height=150 + 40 * len(questions), x_log=True)
    for engine in dict.fromkeys(row["engine"] for row in rows):
        mine = [row for row in rows if row["engine"] == engine]
        ms = [row["ms"] for row in mine]
        figure.add_trace(
            go.Scatter(
                name=engine, x=ms, y=[row["question"] for row in mine], mode="markers",
                marker={"size": 11, "color": colour(engine), "symbol": "diamond" if engine == MOLT else "circle"},
                error_x=around(ms, (row["from_ms"] for row in mine), (row["to_ms"] for row in mine)),
                hovertemplate="%{y}: %{x:,.1f} ms",
            )
        )  # fmt: skip
    figure.update_yaxes(type="category", categoryorder="array", categoryarray=questions[::-1], automargin=True)
    figure.update_layout(legend={"y": 1.0, "yanchor": "bottom"}, margin={"t": 50})
    says = (
        f"{rows[0]['rows']:,} rows that lie there, {found['threads']} threads each; the further to the left, the "
        "faster. Medians of "
        f"{some(found['rounds'], 'round')}, whiskers from the least to the largest."
    )
    return [Chart("resident", "Questions over resident rows", says, figure, wide=True)]


def break_even(found: dict) -> list[Chart]:
    """Both views, from one order line upwards."""
    points = found["points"]
    lines = [point["lines"] for point in points]
    figure = blank("order lines", "microseconds a request", x_log=True, y_log=True)
    figure.add_trace(line("plain view", lines, [one["plain_us"] for one in points], line={"color": colour(PLAIN)},
                          marker={"color": colour(PLAIN)}))  # fmt: skip
    figure.add_trace(line("offloaded view", lines, [one["offloaded_us"] for one in points], line={"color": colour(MOLT)},
                          marker={"color": colour(MOLT)}))  # fmt: skip
    figure.update_xaxes(**marks(lines, "{:,}".format))
    if found["us"] is not None:
        figure.add_trace(level(f"pays from {found['us']:,.0f} us of Python on", lines, found["us"]))
    pays = "it never pays here" if found["us"] is None else f"it pays from {found['us']:,.0f} us of Python work on"
    says = f"The demo's plain and its offloaded view, called in one process without a server around them: {pays}."
    return [Chart("break-even", "Break-even", says, figure)]


def echoes(found: dict) -> list[Chart]:
    """One call from Python beside its peers."""
    rows = found["echo_64_bytes"]["rows"]
    figure = blank("", "microseconds a call")
    for peer in dict.fromkeys(row["peer"] for row in rows):
        mine = [row for row in rows if row["peer"] == peer]
        us = [row["p50_us"] for row in mine]
        figure.add_bar(
            name=peer, x=[row["way"] for row in mine], y=us, marker_color=colour(peer), **bar_text(us, 1),
            error_y=around(us, (row["p50_from_us"] for row in mine), (row["p50_to_us"] for row in mine)),
            hovertemplate="%{x}: %{y:,.1f} us",
        )  # fmt: skip
    says = (
        "64 bytes there and back from Python: hot, one call right after the other, where the scheduler puts the two sides and "
        "with each held on a core of its own; and asleep, a call every 3 ms. Medians, whiskers "
        "from the least to the largest median of a round."
    )
    return [Chart("echo", "A single call from Python", says, figure)]


def overload(found: dict) -> list[Chart]:
    """Answers in time as more and more arrives."""
    figure = blank("requests/s that arrive, as a share of capacity", "answered in time, of capacity")
    for place, shade in (("client", MOLT), ("ASGI", TUNED), ("WSGI", PLAIN)):
        mine = sorted((step for step in found["steps"] if step["place"] == place), key=lambda step: step["share"])
        capacity = found["capacity"].get(place)
        if mine and capacity:
            said = {"client": "the client library", "ASGI": "Django, ASGI", "WSGI": "Django, WSGI"}[place]
            figure.add_trace(
                line(said, [step["share"] for step in mine], [step["answered"] / capacity for step in mine],
                     line={"color": colour(shade)}, marker={"color": colour(shade)},
                     customdata=[[step["answered"], step["busy"]] for step in mine],
                     hovertemplate="%{customdata[0]:,.0f}/s in time, %{customdata[1]:,} told to come back")
            )  # fmt: skip
    figure.update_layout(xaxis_tickformat=".0%", yaxis_tickformat=".0%")
    figure.update_yaxes(rangemode="tozero")
    says = (
        f"An open loop from half to twice what a closed loop shows to be possible; an answer counts within "
        f"{found['plan']['deadline'] * 1000:g} ms of when its request was due."
    )
    return [Chart("overload", "Overload", says, figure)]
