"""report.html: one file that needs no network, with the charts drawn by plotly, the most telling ones first."""

from html import escape

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from . import charts_load, charts_memory, charts_rounds, charts_scale, charts_timeline, parts
from .charts import Chart
from .figures import Figures
from .results import Results
from .tables import Table

STYLE = """
:root { --ink: #1d2433; --soft: #56607a; --line: #e3e7ee; --molt: #0b7a75 }
body { font: 16px/1.55 system-ui, sans-serif; color: var(--ink); background: #fff }
body { max-width: 80rem; margin: 2.5rem auto 5rem; padding: 0 1.25rem }
h1 { font-size: 2rem; margin: 0 } h1 + p { color: var(--soft); max-width: 60rem; margin-top: .5rem }
h2 { font-size: 1.35rem; margin: 3.5rem 0 .25rem; padding-top: 1rem; border-top: 1px solid var(--line) }
h3 { font-size: 1.02rem; margin: 0 0 .25rem } .lead { color: var(--soft); margin: 0 0 1rem; max-width: 60rem }
nav { font-size: .9rem; margin: 1rem 0 } nav a { color: var(--molt); margin-right: 1.1rem; white-space: nowrap }
.charts { display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 2rem 1.5rem; margin-top: 1.25rem }
figure { margin: 0; min-width: 0 } figure.wide { grid-column: 1 / -1 }
figcaption { color: var(--soft); font-size: .87rem; line-height: 1.45; max-width: 60rem }
.wide-table { overflow-x: auto; margin: .25rem 0 1.75rem }
table { border-collapse: collapse; font-size: .84rem; font-variant-numeric: tabular-nums }
th, td { padding: .25rem .7rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap }
th { font-weight: 600; color: var(--soft) } .word { text-align: left } td.word { white-space: normal; min-width: 6rem }
.ours td { font-weight: 600 } .missed td { color: #b3261e }
@media (max-width: 60rem) { .charts { grid-template-columns: minmax(0, 1fr) } }
"""
CONFIG = {"displayModeBar": False, "responsive": True}


class Section:
    """A heading, a sentence, and the charts under it."""

    def __init__(self, key: str, title: str, lead: str, *groups: list[Chart]) -> None:
        self.key, self.title, self.lead = key, title, lead
        self.charts = [chart for group in groups for chart in group]


def sections(results: Results, every: list[Figures]) -> list[Section]:
    """The charts in the order in which they are told; without what was not measured."""
    one = results
    load, peers, tail, micro = one.load, one.peers, one.tail, one.micro
    without = one.without_shared_memory
    made = (
        Section(
            "convincing", "At a glance", "The same work by every side, on the same cores of this machine.",
            charts_load.latency(load) if load else [],
            charts_timeline.disturbed(one.timeline) if one.timeline else [],
            charts_memory.charts(one.memory) if one.memory else [],
        ),
        Section(
            "peers", "Beside the alternatives",
            "What a team would take instead, each tuned as its friends would; who wins stands on top.",
            charts_load.beside(peers) if peers else [],
            charts_load.concurrency(load) if load else [],
            charts_load.percentiles(load) if load else [],
        ),
        Section(
            "django", "In Django", "The demo's endpoints under the same server, with and without the worker.",
            charts_rounds.charts(every), charts_rounds.growth(every), charts_rounds.report(every, one.web_process_mb),
        ),
        Section(
            "pays", "Where it pays", "From which size of work on, and what of it is the shared memory's own doing.",
            charts_scale.break_even(micro["break_even"]) if micro and "break_even" in micro else [],
            charts_scale.echoes(micro) if micro else [],
            charts_scale.without_shared_memory(without) if without else [],
        ),
        Section(
            "scale", "As things grow", "Bytes, clients, requests in flight, rows.",
            charts_scale.transport(one.transport) if one.transport else [],
            charts_scale.in_flight(one.in_flight) if one.in_flight else [],
            charts_scale.handed(one.questions) if one.questions else [],
            charts_scale.resident(one.questions) if one.questions else [],
        ),
        Section(
            "limits", "At the limit", "The slowest requests of a steady load, and what becomes of too many.",
            charts_timeline.tail_percentiles(tail) if tail else [],
            charts_scale.overload(one.overload) if one.overload else [],
            charts_timeline.stalls(tail) if tail else [],
        ),
    )  # fmt: skip
    return [section for section in made if section.charts]


def render(machine: dict, how: str, results: Results, every: list[Figures]) -> str:
    """The whole page."""
    told = sections(results, every)
    judged, *shown = parts.all_tables(results, every)
    links = [(section.key, section.title) for section in told] + [("targets", "Targets"), ("tables", "All tables")]
    nav = "".join(f'<a href="#{key}">{escape(title)}</a>' for key, title in [*links, ("machine", "Machine")])
    ran = Table("", ["", ""], [[name.replace("_", " "), str(value)] for name, value in machine.items()], 2)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>molt under load</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style>'
        f"<script>{get_plotlyjs()}</script></head><body>"
        f"<h1>molt under load</h1><p>{escape(how)}</p><nav>{nav}</nav>"
        f"{''.join(_section(section) for section in told)}"
        f'<h2 id="targets">Targets</h2>{_table(judged)}'
        f'<h2 id="tables">All tables</h2>{"".join(_titled(table) for table in shown)}'
        f'<h2 id="machine">Machine, versions, commands</h2>{_table(ran)}{_titled(commands(results))}</body></html>\n'
    )


def commands(results: Results) -> Table:
    """The command of every side in each workload: with the number of processes that was best, where it was searched."""
    sides = {
        (workload["title"], side["name"]): side
        for found in (results.load, results.peers)
        if found
        for workload in found["workloads"]
        for side in workload["sides"]
    }
    rows = [[title, name, side["version"], side["command"]] for (title, name), side in sides.items()]
    return Table("The sides' commands", ["workload", "side", "version", "command"], rows, 4)


def _section(section: Section) -> str:
    charts = "".join(_chart(chart) for chart in section.charts)
    return (
        f'<h2 id="{section.key}">{escape(section.title)}</h2><p class="lead">{escape(section.lead)}</p>'
        f'<div class="charts">{charts}</div>'
    )


def _chart(chart: Chart) -> str:
    drawn = go.Figure(chart.figure).to_html(
        full_html=False, include_plotlyjs=False, config=CONFIG, div_id=f"chart-{chart.name}"
    )
    return (
        f'<figure class="{"wide" if chart.wide else "half"}"><h3>{escape(chart.title)}</h3>{drawn}'
        f"<figcaption>{escape(chart.says)}</figcaption></figure>"
    )


def _titled(table: Table) -> str:
    return f"<h3>{escape(table.title)}</h3>{_table(table)}" if table.rows else ""


def _table(table: Table) -> str:
    def row(cells: list[str], tag: str) -> str:
        inner = "".join(
            f"<{tag}{' class=word' if number < table.left else ''}>{escape(cell)}</{tag}>"
            for number, cell in enumerate(cells)
        )
        return f'<tr class="{_kind(cells)}">{inner}</tr>'

    rows = "".join(row(cells, "td") for cells in table.rows)
    return f'<div class="wide-table"><table>{row(table.columns, "th")}{rows}</table></div>'


def _kind(cells: list[str]) -> str:
    """What a row is about: molt's own, or a target missed."""
    if cells[-1] in ("missed", "aim missed"):
        return "missed"
    ours = any(cell == "molt" or cell.startswith(("molt,", "/offload")) for cell in cells[:2])
    return "ours" if ours else ""
