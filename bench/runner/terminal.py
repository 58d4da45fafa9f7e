"""The tables on the terminal."""

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table as Shown

from .figures import Figures, servers
from .tables import Table, upright


def show(console: Console, table: Table) -> None:
    """Prints one table."""
    shown = Shown(title=table.title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for number, column in enumerate(table.columns):
        shown.add_column(column, justify="left" if number < table.left else "right", overflow="fold")
    for row in table.rows:
        shown.add_row(*row)
    console.print(shown)


def summary(console: Console, every: list[Figures]) -> None:
    """Prints the summary: one table with a section for each server."""
    sections = [upright(every, server) for server in servers(every)]
    title = "2,000 order lines or 10,000 table rows a request; ratios are to plain Python"
    shown = Shown(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for number, column in enumerate(sections[0].columns):
        shown.add_column(
            column, justify="right" if number else "left", no_wrap=True, style="bold" if "offload" in column else None
        )
    for section in sections:
        shown.add_row(f"[bold cyan]{section.title}")
        for number, row in enumerate(section.rows):
            shown.add_row(*row, end_section=number == len(section.rows) - 1)
    console.print(shown)
