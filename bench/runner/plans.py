"""How long a run loads each endpoint, and the plan of each of its parts."""

from dataclasses import dataclass, replace
from typing import Any

from . import ablation, in_flight, load, memory, micro, overload, peers, tail, timeline, transport
from .scenarios import REPORT_LINES


@dataclass(frozen=True)
class Settings:
    """How much is measured. Times in seconds, each per load. Of a part (parts.py) its plan; None leaves it out."""

    servers: tuple[str, ...]
    users: int
    rounds: int
    seconds: float
    warm_up: float
    curve_lines: tuple[int, ...]
    curve_rounds: int
    curve_seconds: float
    curve_servers: tuple[str, ...]
    arrival_share: float | None  # of the baseline's own requests per second; None leaves the arrival-rate pair out
    report_lines: int  # 0 leaves the report out
    report_users: int
    report_rounds: int
    report_seconds: float
    peers: Any = None
    load: Any = None
    timeline: Any = None
    memory: Any = None
    overload: Any = None
    ablation: Any = None  # of its own where the peers, which end with it, are few or none
    micro: Any = None
    transport: Any = None
    in_flight: Any = None
    questions: Any = None
    tail: Any = None


DEMO = Settings(
    servers=("gunicorn", "granian"),
    users=16,
    rounds=2,
    seconds=4,
    warm_up=1,
    curve_lines=(20, 200, 10_000),
    curve_rounds=1,
    curve_seconds=3,
    curve_servers=("gunicorn",),
    arrival_share=None,
    report_lines=REPORT_LINES,
    report_users=8,
    report_rounds=2,
    report_seconds=2,
)
RUN = Settings(
    servers=("gunicorn", "granian"),
    users=16,
    rounds=5,
    seconds=10,
    warm_up=3,
    curve_lines=(20, 200, 10_000),
    curve_rounds=5,
    curve_seconds=3,
    curve_servers=("gunicorn",),
    arrival_share=0.6,
    report_lines=REPORT_LINES,
    report_users=8,
    report_rounds=5,
    report_seconds=8,
    peers=peers.Plan(),
    load=load.Plan(),
    timeline=timeline.Plan(),
    memory=memory.Plan(),
    overload=overload.Plan(),
    micro=micro.Plan(),
    transport=transport.Plan(),
    in_flight=in_flight.Plan(),
    questions="",
    tail=tail.Plan(),
)
QUICK = replace(
    RUN,
    servers=("gunicorn",),
    rounds=2,
    seconds=1,
    warm_up=1,
    curve_lines=(),
    arrival_share=None,
    report_lines=100_000,
    report_rounds=1,
    report_seconds=1,
    peers=None,
    load=replace(load.QUICK, shares=(0.1, 0.5, 1.0)),
    timeline=timeline.Plan(seconds=5.0, capacity_seconds=1.0),
    memory=memory.Plan(128, 4),
    overload=None,
    ablation=ablation.QUICK,
    micro=micro.QUICK,
    transport=transport.Plan("--quick", ("hot", "sizes", "placing"), 30.0),
    in_flight=replace(in_flight.QUICK, in_flight=(1, 64, 1024), clients=(1, 16)),
    questions="--quick",
    tail=None,
)
"""In short: the peers' rounds, which the load shows too, and overload and tail, of which seconds say nothing, are left out."""
