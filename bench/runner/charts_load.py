"""All sides under load: latency against what is offered, throughput against concurrency, and the peers' rounds."""

import plotly.graph_objects as go

from .charts import Chart, around, bar_text, bars_of, blank, colour, line, marks, panels, some, span
from .load import KEPT_UP, kept_up
from .percentile import BEYOND

PERCENTILES = {"50%": "p50_ms", "99%": "p99_ms", "99.9%": "p999_ms", "99.99%": "p9999_ms", "slowest": "max_ms"}
SHOWN = {"median": "p50_ms", "p99": "p99_ms"}


def latency(found: dict) -> list[Chart]:
    """Median and p99 of every side against the rate at which requests arrive, a chart a workload."""
    out = []
    for workload in found["workloads"]:
        every = [point for side in workload["sides"] for point in side["points"]]
        carried = {name: key for name, key in SHOWN.items() if any(point[key] is not None for point in every)}
        if not carried:
            continue
        figure = panels(carried, 560, y_log=True, shared_yaxes=True, horizontal_spacing=0.03)
        for side in workload["sides"]:
            points = sorted(side["points"], key=lambda point: point["rate"])
            for number, key in enumerate(carried.values(), start=1):
                figure.add_trace(_offered(side["name"], points, key, number == 1), 1, number)
        figure.update_xaxes(title="requests/s that arrive", rangemode="tozero")
        figure.update_yaxes(title="ms from when a request was due", col=1)
        says = (
            "k6 sends requests at a constant rate, the same for all, to each side in turn on the same cores; a cross "
            "stands where a side "
            f"no longer keeps up (answers below {KEPT_UP:.0%} of what arrives), and it is asked no further. "
            f"{carrying(workload)}"
        )
        name = f"latency-{workload['group']}"
        out.append(Chart(name, f"Latency against offered load: {workload['title']}", says, figure, wide=True))
    return out


def _offered(side: str, points: list[dict], key: str, legend: bool) -> go.Scatter:
    """One percentile of one side."""
    told = [[p["answered"], p["errors"], p["not_started"], p["samples"]] for p in points]
    marker = {"size": 8, "symbol": ["circle" if kept_up(point) else "x" for point in points], "color": colour(side)}
    hover = (
        "%{x:,.0f}/s arrive, %{customdata[0]:,.0f}/s answered: %{y:,.1f} ms<br>of %{customdata[3]:,} requests, "
        "%{customdata[1]} errors, %{customdata[2]} not started"
    )
    return line(
        side, [point["rate"] for point in points], [point[key] for point in points], customdata=told, marker=marker,
        hovertemplate=hover, legendgroup=side, showlegend=legend,
    )  # fmt: skip


def carrying(workload: dict) -> str:
    """From how many requests a percentile on the chart comes."""
    counts = [point["samples"] for side in workload["sides"] for point in side["points"]]
    return (
        f"A point comes from {span(counts)} requests; a percentile is drawn only where {BEYOND} at least were slower."
    )


def concurrency(found: dict) -> list[Chart]:
    """Requests a second against requests in flight."""
    out = []
    for workload in found["workloads"]:
        figure = blank("requests in flight", "requests/s", x_log=True)
        users: set[int] = set()
        for side in workload["sides"]:
            points = sorted(side.get("concurrency", ()), key=lambda point: point["users"])
            if not points:
                continue
            users |= {point["users"] for point in points}
            figure.add_trace(
                line(
                    side["name"],
                    [point["users"] for point in points],
                    [point["rps"] for point in points],
                    customdata=[[point["p50_ms"], point["p99_ms"]] for point in points],
                    hovertemplate="%{x} in flight: %{y:,.0f}/s, median %{customdata[0]} ms, p99 %{customdata[1]} ms",
                )
            )
        if len(users) < 2:
            continue
        figure.update_xaxes(**marks(users, str))
        figure.update_yaxes(rangemode="tozero")
        says = (
            "A closed loop: each of so many users sends its next request when the last is answered; each side in turn."
        )
        name = f"concurrency-{workload['group']}"
        out.append(Chart(name, f"Throughput against concurrency: {workload['title']}", says, figure))
    return out


def percentiles(found: dict) -> list[Chart]:
    """From the median to p99.99 at the highest rate that all sides of a workload kept up with."""
    out = []
    for workload in found["workloads"]:
        rate = common_rate(workload)
        if rate is None:
            continue
        figure = blank("share of requests answered within", "ms", y_log=True)
        counts = []
        for side in workload["sides"]:
            point = next(point for point in side["points"] if point["rate"] == rate)
            counts.append(point["samples"])
            known = [(share, point[key]) for share, key in PERCENTILES.items() if point[key] is not None]
            figure.add_trace(
                line(side["name"], [share for share, _ in known], [ms for _, ms in known],
                     hovertemplate="%{x} within %{y:,.1f} ms")
            )  # fmt: skip
        known = [share for share in PERCENTILES if any(share in trace.x for trace in figure.data)]
        figure.update_xaxes(type="category", categoryarray=known, categoryorder="array")
        says = (
            f"At {rate:,.0f} requests/s, the highest rate with which all sides kept up; {span(counts)} requests a side, "
            f"a percentile only where {BEYOND} of them at least were slower, and the slowest one."
        )
        name = f"percentiles-{workload['group']}"
        out.append(Chart(name, f"Latency at one rate for all: {workload['title']}", says, figure))
    return out


def common_rate(workload: dict) -> float | None:
    """The highest rate that every side was offered and kept up with."""
    rates = [{point["rate"] for point in side["points"] if kept_up(point)} for side in workload["sides"]]
    return max(set.intersection(*rates), default=None) if rates else None


PANELS = (
    ("requests/s", lambda side: side["rps"]),
    ("requests per CPU second", lambda side: side["requests_per_cpu_s"]),
    ("p99 at equal arrivals, ms (less is better)", lambda side: side["arrival"]["p99_ms"]),
)


def beside(found: dict) -> list[Chart]:
    """The peers: requests a second with the spread of the rounds, what a CPU second buys, and the p99 at one arrival rate."""
    out = []
    for workload in found["workloads"]:
        sides = sorted(workload["sides"], key=lambda side: side["rps"])
        names = [side["name"] for side in sides]
        titles = [title for title, _ in PANELS]
        figure = panels(titles, 130 + 40 * len(sides), shared_yaxes=True, horizontal_spacing=0.03)
        figure.update_layout(showlegend=False, margin={"l": 180, "b": 40})
        for number, (title, take) in enumerate(PANELS, start=1):
            values = [take(side) for side in sides]
            spread = (
                around(values, (s["rps_from"] for s in sides), (s["rps_to"] for s in sides)) if number == 1 else None
            )
            figure.add_bar(
                name=title, y=names, x=values, orientation="h", row=1, col=number, error_x=spread,
                **bar_text(values, number // 3), marker=bars_of(names),
                hovertemplate="%{y}: %{x:,.1f}<extra></extra>",
            )  # fmt: skip
        says = (
            f"{found['users']} requests in flight, {some(found['rounds'], 'round')} of {found['seconds']:g} s, the sides in "
            "turn, each with its "
            f"best number of processes; the bars' whiskers are the slowest and the fastest round, and on the right "
            f"{workload['arriving']:,.0f} requests/s arrive for all (a bar is left out where too few of them carry a "
            "p99)."
        )
        out.append(
            Chart(f"peers-{workload['group']}", f"Beside the alternatives: {workload['title']}", says, figure, True)
        )
    return out
