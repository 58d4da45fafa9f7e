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
    parts += [table(one) for one in everything(results, every)]
    parts.append("## Machine\n\n" + "\n".join(f"- {name}: {value}" for name, value in machine.items()))
    return "\n\n".join(parts) + "\n"


def table(one: Table) -> str:
    """One table under its title."""
    rule = ["---" if column < one.left else "---:" for column in range(len(one.columns))]
    rows = ["| " + " | ".join(cells) + " |" for cells in [one.columns, rule, *one.rows]]
    return f"## {one.title}\n\n" + "\n".join(rows)
