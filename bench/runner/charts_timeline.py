"""What happens over time: every request around a kill and an upgrade, and every stall of a long steady load."""

from itertools import cycle

import plotly.graph_objects as go

from . import timeline
from .charts import FAILED, INK, MOLT, PLACES, SPARE, Chart, blank, level, line, rgba, span
from .percentile import BEYOND


def disturbed(found: dict) -> list[Chart]:
    """A point for every request, a line for each moment, and the time until the next worker served; a chart a place."""
    out = []
    for place in found["places"]:
        requests = place["requests"]
        every = list(zip(requests["due_s"], requests["ms"], requests["outcome"], strict=True))
        good = [one for one in every if one[2] == timeline.ANSWERED]
        bad = [one for one in every if one[2] != timeline.ANSWERED]
        figure = blank("seconds since the first request was due", "ms until its answer", height=380, y_log=True)
        figure.add_trace(
            go.Scatter(
                name=f"answered ({len(good):,})", x=[due for due, _, _ in good], y=[ms for _, ms, _ in good], mode="markers",
                marker={"size": 4, "color": rgba(MOLT, 0.55)}, hovertemplate="due at %{x:.2f} s, answered after %{y:,.1f} ms",
            )
        )  # fmt: skip
        figure.add_trace(
            go.Scatter(
                name=f"failed ({len(bad):,})", x=[due for due, _, _ in bad], y=[ms for _, ms, _ in bad], mode="markers",
                marker={"size": 11, "symbol": "x", "color": FAILED}, text=[said for _, _, said in bad], showlegend=True,
                hovertemplate="due at %{x:.2f} s: %{text} after %{y:,.1f} ms",
            )
        )  # fmt: skip
        for moment in place["moments"]:
            figure.add_vrect(
                moment["at_s"], max(moment["back_s"], moment["at_s"]), fillcolor=INK, opacity=0.08, line_width=0
            )
            gap = (moment["back_s"] - moment["at_s"]) * 1000
            said = f"{moment['what']}<br>next worker after {gap:,.0f} ms, {moment['failed']} failed"
            figure.add_vline(moment["at_s"], line={"color": INK, "dash": "dot"})
            figure.add_annotation(
                x=moment["at_s"], y=1, yref="paper", yanchor="bottom", xanchor="left", text=said, showarrow=False, align="left",
                font={"size": 12},
            )  # fmt: skip
        figure.update_layout(margin={"t": 50}, showlegend=True)
        name = timeline.named(place["place"])
        says = (
            f"{place['sent']:,} requests at {place['rate']:,.0f} a second through {name}, each a point, its time "
            "counted from when "
            f"it was due; {place['failed']:,} failed. The worker is killed with SIGKILL and later replaced in place, "
            "both under this load."
        )
        key = f"timeline-{place['place'].lower()}"
        out.append(Chart(key, f"A kill -9 and an upgrade under load: {name}", says, figure, wide=True))
    return out


PERCENTILES = {"50%": "p50_ms", "99%": "p99_ms", "99.9%": "p999_ms", "99.99%": "p9999_ms", "slowest": "max_ms"}


def tail_percentiles(found: dict) -> list[Chart]:
    """From the median to the slowest request at each steady load."""
    figure = blank("share of requests answered within", "ms", y_log=True)
    counts = []
    for place, shade in zip(found["places"], cycle(PLACES), strict=False):
        for number, load in enumerate(place["loads"]):
            counts.append(load["requests"])
            known = [(share, load[key]) for share, key in PERCENTILES.items() if load[key] is not None]
            dash = ("solid", "dash", "dot")[number % 3]
            side = {"color": shade, "dash": dash, "width": 2}
            figure.add_trace(
                line(f"{place['name']} at {load['share']:.0%}", [share for share, _ in known], [ms for _, ms in known],
                     line=side, marker={"color": shade}, hovertemplate="%{x}: %{y:,.2f} ms")
            )  # fmt: skip
    figure.update_xaxes(type="category", categoryorder="array", categoryarray=[*PERCENTILES])
    says = (
        f"Steady arrivals at a share of what each place can answer; {span(counts)} requests a load, and no percentile "
        f"with fewer than {BEYOND} slower requests."
    )
    return [Chart("tail-percentiles", "The tail under steady load", says, figure)]


def stalls(found: dict) -> list[Chart]:
    """The stalls of each steady load, by their cause."""
    out = []
    for place in found["places"]:
        causes = list(dict.fromkeys(stall["cause"] for load in place["loads"] for stall in load["stalls"]))
        figure = blank("seconds into the load", "ms", y_log=True)
        for load in place["loads"]:
            share = f"{load['share']:.0%}"
            for cause in causes:
                mine = [stall for stall in load["stalls"] if stall["cause"] == cause]
                if not mine:
                    continue
                figure.add_trace(
                    go.Scatter(
                        name=f"{cause}, at {share} ({load['causes'].get(cause, len(mine)):,})", mode="markers",
                        x=[stall["at_s"] for stall in mine], y=[stall["ms"] for stall in mine],
                        marker={"size": 8, "color": SPARE[causes.index(cause) % len(SPARE)],
                                "symbol": "circle" if load is place["loads"][0] else "diamond-open"},
                        hovertemplate="at %{x:.1f} s: %{y:,.1f} ms",
                    )
                )  # fmt: skip
            for key, dash, said in (("limit_ms", "dash", "limit"), ("p99_ms", "dot", "p99")):
                if load[key] is None:
                    continue
                shade = INK if key == "limit_ms" else "#9aa3b5"
                name = f"{said} at {share}: {load[key]:,.2f} ms"
                figure.add_trace(level(name, (0, load["seconds"]), load[key], dash, shade))
        loads = " and ".join(
            f"{load['rate']:,.0f}/s for {load['seconds']:,.0f} s ({load['requests']:,} requests)"
            for load in place["loads"]
        )
        says = f"Every stall at {loads}, coloured by its cause; none may cross the limit in the first of them."
        key = f"stalls-{place['name'].lower().replace(' ', '-')}"
        out.append(Chart(key, f"Stalls under steady load: {place['name']}", says, figure))
    return out
