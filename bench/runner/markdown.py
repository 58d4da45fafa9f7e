"""summary.md"""

from .figures import Figures
from .measure import Results
from .scenarios import Settings
from .tables import Table, everything


def how(settings: Settings) -> str:
    """One sentence on how the figures were taken."""
    return (
        f"{settings.users} requests in flight, {settings.rounds} rounds of {settings.seconds:g} s each, the endpoints "
        "in turn; every figure is the median of its rounds, errors are added up. Everything ran on this one machine, "
        "the load generator included: ratios travel to other machines, absolute figures do not."
    )


def render(machine: dict, settings: Settings, results: Results, every: list[Figures]) -> str:
    """The whole report as Markdown."""
    parts = ["# molt under load", how(settings)]
    parts += [_table(table) for table in everything(results, every)]
    parts.append("## Machine\n\n" + "\n".join(f"- {name}: {value}" for name, value in machine.items()))
    return "\n\n".join(parts) + "\n"


def _table(table: Table) -> str:
    rule = ["---" if column < table.left else "---:" for column in range(len(table.columns))]
    rows = ["| " + " | ".join(cells) + " |" for cells in [table.columns, rule, *table.rows]]
    return f"## {table.title}\n\n" + "\n".join(rows)
