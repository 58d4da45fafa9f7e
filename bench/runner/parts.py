"""The parts of a run: what is measured beside the loads of measure.py, each also by a command of its own.

A part is a module with `measure(owned, logs, plan, say)`, whose answer goes into the JSON as it is and which says what it
does while it does it, `planned_seconds(plan)`, and `tables(found)` and `verdicts(found)` of that answer. It is found by
its name: in Settings lies its plan, in Results its answer.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import (
    ablation,
    analytics,
    in_flight,
    load,
    memory,
    micro,
    overload,
    peers,
    tables,
    tail,
    targets,
    timeline,
    transport,
)
from .figures import Figures
from .owned import Owned
from .results import Results
from .say import Say
from .tables import Table
from .targets import Verdict


@dataclass(frozen=True)
class Part:
    """One part. `doing` is what the progress line says."""

    name: str
    doing: str
    measure: Callable[[Owned, Path, Any, Say], dict]
    planned_seconds: Callable[[Any], float]
    tables: Callable[[dict], list[Table]]
    verdicts: Callable[[dict], list[Verdict]]

    @classmethod
    def of(cls, name: str, doing: str, module: Any) -> "Part":
        """The part that a module is."""
        return cls(name, doing, module.measure, module.planned_seconds, module.tables, module.verdicts)


def _overload_seconds(plan: overload.Plan) -> float:
    return 3 * (4.0 + plan.capacity_seconds + len(plan.shares) * (plan.seconds + overload.SETTLING))


ALL = (
    Part.of("load", "latency against offered load, all sides", load),
    Part.of("timeline", "a kill -9 and an upgrade under load", timeline),
    Part.of("memory", "one table that many Django processes read", memory),
    Part.of("peers", "the same endpoints by what a team would take instead", peers),
    Part("overload", "half to twice the capacity, in an open loop", overload.measure, _overload_seconds,
         lambda found: [overload.table(found)], overload.verdicts),
    Part.of("tail", "the longest requests of a steady load, and their causes", tail),
    Part.of("ablation", "the same entries with and without shared memory", ablation),
    Part("micro", "single calls, the worker's start and size", micro.measure, micro.planned_seconds,
         lambda found: [tables.echoes(found), tables.micro(found)], targets.single),
    Part.of("transport", "the transport beside its peers", transport),
    Part.of("in_flight", "calls in flight, and client processes", in_flight),
    Part.of("questions", "questions over tables", analytics),
)  # fmt: skip
"""In the order in which they are measured and shown."""


def named(name: str) -> Part:
    """The part of that name."""
    return next(part for part in ALL if part.name == name)


def verdicts(results: Results, every: list[Figures]) -> list[Verdict]:
    """All targets that these results say something about."""
    out = targets.of_loads(results, every)
    for part, found in measured(results):
        out += part.verdicts(found)
    return sorted(out, key=lambda one: (not one.target.startswith("S"), len(one.target), one.target))


def all_tables(results: Results, every: list[Figures]) -> list[Table]:
    """All tables that have rows, the targets first."""
    out = [tables.judged(verdicts(results, every)), *tables.of_loads(results, every)]
    for part, found in measured(results):
        out += part.tables(found)
    failed = [[name, reason.splitlines()[0]] for name, reason in results.failed.items()]
    out.append(Table("Parts that failed", ["part", "why"], failed, 2))
    return [table for table in out if table.rows]


def measured(results: Results) -> list[tuple[Part, dict]]:
    """The parts that were measured, each with what it found."""
    return [(part, found) for part in ALL if (found := getattr(results, part.name)) is not None]
