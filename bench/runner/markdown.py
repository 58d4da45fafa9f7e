"""summary.md"""

from .figures import Figures
from .parts import all_tables
from .results import Results
from .tables import Table


def render(machine: dict, how: str, results: Results, every: list[Figures]) -> str:
    """The whole report as Markdown."""
    parts = ["# molt under load", how]
    parts += [table(one) for one in all_tables(results, every)]
    parts.append("## Machine\n\n" + "\n".join(f"- {name}: {value}" for name, value in machine.items()))
    return "\n\n".join(parts) + "\n"


def table(one: Table) -> str:
    """One table under its title."""
    rule = ["---" if column < one.left else "---:" for column in range(len(one.columns))]
    rows = ["| " + " | ".join(cells) + " |" for cells in [one.columns, rule, *one.rows]]
    return f"## {one.title}\n\n" + "\n".join(rows)
