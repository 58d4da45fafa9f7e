"""What all charts of the page have in common: a chart says under itself what it shows, and a side has one colour everywhere."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

MOLT, PLAIN, TUNED = "molt", "plain Python", "tuned Python"
GRANIAN = ", granian"
"""Ends the name of a side that runs under granian; it has the colour of the one under gunicorn, dashed or hatched."""
COLOURS = {
    MOLT: "#0b7a75",
    "molt, an entry": "#4fb3a5",
    "molt, spinning while it pays": "#0b7a75",
    "molt, never spinning": "#4fb3a5",
    "shared memory": "#0b7a75",
    PLAIN: "#7d8597",
    TUNED: "#e09f3e",
    "Go": "#2f6fde",
    "process pool": "#b5651d",
    "gunicorn dirty workers": "#8e5bb5",
    "numpy": "#e0672f",
    "pandas": "#b0307a",
    "Polars": "#5a4fcf",
    "Polars, streaming": "#9a92e8",
    "DuckDB": "#c9a400",
    "datafusion-python": "#4c8c2b",
    "Arrow Flight sidecar": "#d1495b",
    "Unix socket": "#d1495b",
    "iceoryx2": "#2f6fde",
    "bare cache line": "#7d8597",
    "ring pair": "#4fb3a5",
    "pyzmq REQ/REP": "#8e5bb5",
    "multiprocessing.Pipe": "#e09f3e",
}
"""molt's own are green; everybody else has a colour of its own in every chart."""
SPARE = ("#5c6b73", "#a0522d", "#20639b", "#6a994e", "#bc4b51", "#7f5539")
PLACES = ("#0b7a75", "#2f6fde", "#e09f3e", "#8e5bb5")
"""Where molt alone is measured, at several places."""
FAILED = "#d00000"
INK, FAINT = "#1d2433", "#e6e9f0"


@dataclass(frozen=True)
class Chart:
    """A figure under a title, and the sentence below it: what it shows and how it was made."""

    name: str
    title: str
    says: str
    figure: go.Figure
    wide: bool = False


def colour(side: str) -> str:
    """The side's own, the same on every chart; of a side that nobody has thought of, one that its name leads to."""
    side = side.removesuffix(GRANIAN)
    return COLOURS.get(side) or SPARE[sum(side.encode()) % len(SPARE)]


def rgba(side: str, opacity: float) -> str:
    """The side's colour, seen through."""
    code = colour(side).lstrip("#")
    return f"rgba({', '.join(str(int(code[at : at + 2], 16)) for at in (0, 2, 4))}, {opacity})"


def blank(x: str, y: str, *, height: int = 400, x_log: bool = False, y_log: bool = False) -> go.Figure:
    """A figure with named axes and nothing on it."""
    figure = go.Figure()
    figure.update_layout(
        template="plotly_white", height=height, margin={"l": 70, "r": 24, "t": 24, "b": 60}, xaxis_title=x, yaxis_title=y,
        legend={"orientation": "h", "y": -0.2, "yanchor": "top", "x": 0}, hovermode="closest",
        font={"size": 13, "color": INK, "family": "system-ui, sans-serif"}, barmode="group",
    )  # fmt: skip
    style(figure, x_log=x_log, y_log=y_log)
    return figure


def style(figure: go.Figure, *, x_log: bool = False, y_log: bool = False) -> None:
    """The axes as all charts have them; a logarithmic one has a line for 1, 2 and 5 of each power."""
    for update, log in ((figure.update_xaxes, x_log), (figure.update_yaxes, y_log)):
        update(gridcolor=FAINT, zeroline=False, **({"type": "log", "dtick": "D2"} if log else {}))


def line(side: str, x: Iterable[Any], y: Iterable[Any], **more: Any) -> go.Scatter:
    """A side's curve."""
    drawn = {"color": colour(side), "width": 2, "dash": "dash" if side.endswith(GRANIAN) else "solid"}
    given = {"mode": "lines+markers", "line": drawn, "marker": {"size": 6, "color": colour(side)}, **more}
    return go.Scatter(name=side, x=list(x), y=list(y), **given)


def around(middle: Iterable[float], least: Iterable[float], most: Iterable[float]) -> dict[str, Any]:
    """Error bars from the least to the most of the rounds."""
    middle, least, most = list(middle), list(least), list(most)
    return {
        "type": "data",
        "symmetric": False,
        "array": [max(0.0, high - value) for value, high in zip(middle, most, strict=True)],
        "arrayminus": [max(0.0, value - low) for value, low in zip(middle, least, strict=True)],
        "thickness": 1.2,
        "width": 3,
    }


def bars_of(sides: Iterable[str]) -> dict[str, Any]:
    """How the sides' bars are filled."""
    sides = list(sides)
    hatched = ["/" if side.endswith(GRANIAN) else "" for side in sides]
    return {
        "color": [colour(side) for side in sides],
        "pattern": {"shape": hatched, "solidity": 0.25, "fillmode": "overlay"},
    }


def panels(titles: Iterable[str], height: int, *, x_log: bool = False, y_log: bool = False, **more: Any) -> go.Figure:
    """Several charts beside each other, each under a title of its own."""
    titles = list(titles)
    figure = make_subplots(1, len(titles), subplot_titles=titles, **more)
    base = blank("", "", height=height).layout
    kept = {name: base[name] for name in ("template", "height", "font", "margin", "legend", "hovermode")}
    figure.update_layout(**kept, barmode="group")
    figure.update_layout(margin={"t": 44})
    style(figure, x_log=x_log, y_log=y_log)
    figure.update_annotations(font={"size": 13, "color": INK})
    return figure


def level(name: str, x: Iterable[Any], y: float, dash: str = "dot", shade: str = INK) -> go.Scatter:
    """A line across at one height. A trace: plotly places the shapes of a logarithmic axis wrongly."""
    x = list(x)
    return go.Scatter(
        name=name, x=[min(x), max(x)], y=[y, y], mode="lines", line={"color": shade, "dash": dash, "width": 1.3}, hoverinfo="name",
    )  # fmt: skip


def bar_text(values: Iterable[float | None], digits: int = 0) -> dict[str, Any]:
    """Figures in the bars, or beyond those that are too short."""
    shown = ["–" if value is None else f"{value:,.{digits if value < 1000 else 0}f}" for value in values]
    return {
        "text": [f"  {one}  " for one in shown], "textposition": "auto", "insidetextanchor": "start", "textangle": 0,
        "constraintext": "none", "cliponaxis": False,
    }  # fmt: skip


def some(count: int, what: str) -> str:
    """`1 round`, `5 rounds`"""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def span(counts: Iterable[int]) -> str:
    """`45`, or `45 to 441`"""
    chosen = sorted(counts)
    return f"{chosen[0]:,}" if chosen[0] == chosen[-1] else f"{chosen[0]:,} to {chosen[-1]:,}"


def size(count: int) -> str:
    """`64 B`, `16 KiB`, `1 MiB`"""
    for unit, power in (("MiB", 20), ("KiB", 10)):
        if count >= 1 << power:
            return f"{count / (1 << power):g} {unit}"
    return f"{count} B"


def marks(values: Iterable[float], text: Any) -> dict[str, list]:
    """Ticks at the measured values themselves."""
    chosen = sorted(set(values))
    return {"tickmode": "array", "tickvals": chosen, "ticktext": [text(value) for value in chosen], "dtick": None}
