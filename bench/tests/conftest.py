"""Measurements as a run would have made them, without running anything."""

import json
from pathlib import Path

import pytest

from bench.runner import k6
from bench.runner.measure import Results, Round
from bench.runner.scenarios import ORDERS, TABLES, Scenario, at_lines
from bench.runner.usage import Usage

CANNED = json.loads((Path(__file__).parent / "k6_summary.json").read_text())


def canned(speed: float = 1.0, failed: int = 0) -> k6.Generated:
    """What k6 said about a baseline load once, as if the endpoint had been `speed` times as fast."""
    summary = json.loads(json.dumps(CANNED))
    metrics = summary["metrics"]
    metrics["http_reqs"]["values"]["count"] = round(metrics["http_reqs"]["values"]["count"] * speed)
    metrics["http_req_failed"]["values"]["passes"] = failed
    took = metrics["http_req_duration"]["values"]
    for key in took:
        took[key] /= speed
    return k6.read(summary, generator_cpu_s=0.5)


def round_of(scenario: Scenario, speed: float, server: str, kind: str = "pair", rate: float | None = None) -> Round:
    """One round of a scenario that is `speed` times as fast as the canned baseline."""
    django = Usage(cpu_s=2.0, rss_mb=190.0, pss_mb=120.0)
    return Round(scenario, server, kind, 16, rate, canned(speed), django, Usage(0.5, 80.0, 60.0))


@pytest.fixture
def results() -> Results:
    """Five rounds of everything under two servers: offload 10 times the baseline, tuned 3 times, tables 20 times."""
    made = Results(compared={"gunicorn": 50, "granian": 50})
    for server in ("gunicorn", "granian"):
        for wobble in (0.9, 0.95, 1.0, 1.1, 1.2):
            for scenario, speed in zip((*ORDERS, *TABLES), (1, 10, 3, 1, 20), strict=True):
                made.rounds.append(round_of(scenario, speed * wobble, server))
    for lines, gain in ((20, 1.1), (200, 4), (10_000, 12)):
        plain, offload = at_lines(lines)
        made.rounds.append(round_of(plain, 2_000 / lines, "gunicorn", "curve"))
        made.rounds.append(round_of(offload, 2_000 / lines * gain, "gunicorn", "curve"))
    for scenario, speed in zip(ORDERS[:2], (1, 1), strict=True):
        made.rounds.append(round_of(scenario, speed, "gunicorn", "arrival", rate=80.0))
    made.micro = {
        "echo_64_bytes": {"molt_hot_us": 5.0, "socket_hot_us": 50.0, "molt_asleep_us": 60.0, "socket_asleep_us": 55.0},
        "compute_us": {"3": 10.0, "10000": 500.0},
        "worker": {"first_answer_ms": 40.0, "idle_mb": 25.0, "stripped_mb": 80.0},
    }
    return made
