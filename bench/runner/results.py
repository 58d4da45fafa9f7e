"""What a run has measured, as it was measured; and the same out of the JSON that it left."""

from dataclasses import dataclass, field
from typing import Any

from .k6 import Generated
from .scenarios import Scenario
from .usage import Usage

PARTS = (
    "peers", "load", "timeline", "memory", "overload", "ablation", "micro", "transport", "in_flight", "questions", "tail",
)  # fmt: skip


@dataclass(frozen=True)
class Round:
    """One load of one scenario. CPU seconds are those of this load; memory is as it was at its end."""

    scenario: Scenario
    server: str
    kind: str  # "pair", "curve", "arrival" or "report"
    users: int
    rate: float | None
    generated: Generated
    django: Usage
    worker: Usage


@dataclass
class Results:
    """Everything that was measured, in order. Each part (parts.py) has a field of its name: what it found, or None."""

    rounds: list[Round] = field(default_factory=list)
    compared: dict[str, int] = field(default_factory=dict)  # per server: how many answers were compared
    left_behind: list[str] = field(default_factory=list)  # names that a worker should have removed
    web_process_mb: dict[str, float] = field(default_factory=dict)  # per report scenario, after its loads
    failed: dict[str, str] = field(default_factory=dict)  # parts that ended early, each with why
    peers: dict | None = None
    load: dict | None = None
    timeline: dict | None = None
    memory: dict | None = None
    overload: dict | None = None
    ablation: dict | None = None
    micro: dict | None = None
    transport: dict | None = None
    in_flight: dict | None = None
    questions: dict | None = None
    tail: dict | None = None

    @property
    def without_shared_memory(self) -> dict | None:
        """The ablation: measured by itself, or at the end of the peers."""
        return self.ablation or (self.peers or {}).get("ablation")


def restored(told: dict[str, Any]) -> Results:
    """The results whose details.json this is."""
    return Results(
        rounds=[_round(one) for one in told["rounds"]],
        compared=told["compared_answers"],
        left_behind=told["left_behind"],
        web_process_mb=told["web_process_mb"],
        failed=told.get("failed", {}),
        **{name: told.get(name) for name in PARTS},
    )


def _round(told: dict[str, Any]) -> Round:
    return Round(
        **{
            **told,
            "scenario": Scenario(**told["scenario"]),
            "generated": Generated(**told["generated"]),
            "django": Usage(**told["django"]),
            "worker": Usage(**told["worker"]),
        }
    )
