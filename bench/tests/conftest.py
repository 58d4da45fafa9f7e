"""Measurements as a run would have made them, without running anything."""

import json
from pathlib import Path

import pytest

from bench.runner import calls, k6
from bench.runner.results import Results, Round
from bench.runner.scenarios import ORDERS, REPORTS, TABLES, Scenario, at_lines
from bench.runner.usage import Usage

from . import canned as parts

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


def echo_row(way: str, peer: str, p50: float) -> dict:
    """What single calls from Python have shown."""
    return {"way": way, "peer": peer, **calls.figures([[int(p50 * 1e3)] * 10_000])}


def transport_row(part: str, peer: str, p50: float, clients: int = 1, size: int = 64) -> dict:
    """What molt-transport-bench has shown of one peer."""
    return {
        "part": part, "peer": peer, "size": size, "clients": clients, "p50_us": p50, "p99_us": 2 * p50, "p999_us": 9 * p50,
        "p50_from_us": p50 * 0.9, "p50_to_us": p50 * 1.1, "calls_per_s": clients * 1e6 / p50, "cpu_us": 2 * p50, "rounds": 3,
    }  # fmt: skip


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
    for scenario, speed in zip(REPORTS, (1, 6, 5, 7), strict=True):
        made.rounds.append(round_of(scenario, speed, "gunicorn", "report"))
    made.web_process_mb = {one.name: mb for one, mb in zip(REPORTS, (63.0, 48.0, 250.0, 303.0), strict=True)}
    for name in ("peers", "timeline", "memory", "overload", "questions", "load", "in_flight", "tail"):
        make = {"timeline": parts.disturbed}.get(name) or getattr(parts, name)
        setattr(made, name, make())
    made.micro = {
        "echo_64_bytes": {
            "rows": [
                echo_row(way, peer, p50)
                for way, peer, p50 in (
                    ("hot", "molt", 5.0),
                    ("hot", "Unix socket", 50.0),
                    ("hot, a core each", "molt", 4.0),
                    ("hot, a core each", "Unix socket", 60.0),
                    ("asleep", "molt", 60.0),
                    ("asleep", "Unix socket", 55.0),
                )
            ],
            "missing": {"pyzmq REQ/REP": "not installed: No module named 'zmq'"},
        },
        "saturated": {"processes": 4, "calls": 1000, "client_us": 6.0, "worker_us": 3.0, "cpu_us": 9.0},
        "compute_us": {"3": 10.0, "10000": 500.0},
        "import_ms": 21.0,
        "client_mb": 5.5,
        "break_even": parts.break_even(),
        "worker": {"first_answer_ms": 40.0, "idle_mb": 25.0, "stripped_mb": 80.0},
    }
    made.transport = {
        "rows": [
            *(transport_row("hot", peer, p50) for peer, p50 in (("molt", 0.6), ("iceoryx2", 0.8), ("bare cache line", 0.1))),
            *(transport_row("sizes", "molt", us, size=size) for size, us in ((64, 0.6), (1 << 20, 120.0), (64 << 20, 9_000.0))),
            *(transport_row("sizes", "iceoryx2", us, size=size) for size, us in ((64, 0.8), (1 << 20, 110.0))),
            *(transport_row("clients", "molt", us, clients=count) for count, us in ((1, 20.0), (16, 90.0), (256, 1_500.0))),
            transport_row("spinning", "molt, spinning while it pays", 16.5, clients=16),
            transport_row("spinning", "molt, never spinning", 16.4, clients=16),
        ],
        "placing": {
            "bytes": 67_000_000, "table_gb_per_s": 12.0, "memcpy_gb_per_s": 15.0, "ratio": 0.8, "ratio_from": 0.7,
            "ratio_to": 0.9, "rounds": 3,
        },
        "missing": [{"peer": "Unix socket", "part": "hot, 64 bytes, 1 clients", "why": "it closed its end"}],
    }  # fmt: skip
    return made
