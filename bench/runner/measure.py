"""The run: for each server a fresh worker and Django, equal answers first, then the loads, in turn."""

from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from . import dashboard, data, equal, k6, parts, servers, usage, worker
from .errors import BenchError
from .owned import Owned
from .plans import Settings
from .progress import RunProgress
from .results import Results, Round
from .scenarios import BASELINE, OFFLOAD, ORDERS, REPORTS, TABLES, Scenario, at_lines
from .servers import Server
from .worker import Worker

K6_START = 0.7  # seconds from k6's start to its first request, and from its last to its end
SERVER_SETUP = 6.0  # start, equality check, and the end
REPORT_SETUP = 8.0  # four servers, equality check
LINES_A_SECOND = 150_000  # made the first time, and put into the worker
GO_BUILD = 30.0  # the first time


def planned_seconds(settings: Settings) -> float:
    """How long the run takes, as far as can be known before it."""

    def loads(count: int, seconds: float) -> float:
        return count * (seconds + K6_START)

    total = 0.0
    for server in settings.servers:
        group = len(ORDERS) + len(TABLES)
        total += SERVER_SETUP + loads(group, settings.warm_up) + loads(group * settings.rounds, settings.seconds)
        if server in settings.curve_servers:
            total += loads(2 * len(settings.curve_lines) * settings.curve_rounds, settings.curve_seconds)
        if settings.arrival_share is not None:
            total += loads(2, settings.seconds)
    if settings.report_lines:
        total += report_setup(settings.report_lines) + loads(len(REPORTS), settings.warm_up)
        total += loads(len(REPORTS) * settings.report_rounds, settings.report_seconds)
    if settings.peers is not None or settings.load is not None:
        total += GO_BUILD
    return total + sum(part.planned_seconds(plan) for part, plan in planned(settings))


def report_setup(lines: int) -> float:
    """Until the report can be asked, where nothing is there yet."""
    return REPORT_SETUP + lines / LINES_A_SECOND


def planned(settings: Settings) -> list[tuple[parts.Part, Any]]:
    """The parts that the settings ask for, each with its plan."""
    return [(part, plan) for part in parts.ALL if (plan := getattr(settings, part.name)) is not None]


class Run:
    """One run of the plan, writing its logs under `folder`."""

    def __init__(self, owned: Owned, settings: Settings, progress: RunProgress, folder: Path) -> None:
        self._owned = owned
        self._settings = settings
        self._progress = progress
        self._logs = folder / "logs"
        self._results = Results()

    def all(self) -> Results:
        """Measures everything that the settings ask for."""
        for name in self._settings.servers:
            self._server(name)
        if self._settings.report_lines:
            self._report(self._settings.report_lines)
        for part, plan in planned(self._settings):
            with self._progress.step(part.doing, part.planned_seconds(plan)):
                found = self._part(part, plan)
            if found is not None:
                self._results.left_behind += found.get("left_behind", [])
                setattr(self._results, part.name, found)
        return self._results

    def _part(self, part: parts.Part, plan: Any) -> dict | None:
        """What a part has found. One that fails is told at the end: an hour of the others is not thrown away for it."""
        mark = self._owned.mark()
        try:
            return part.measure(self._owned, self._logs, plan, self._progress.say)
        except BenchError as reason:
            self._owned.end_since(mark)
            self._results.failed[part.name] = str(reason)
            return None

    def _server(self, name: str) -> None:
        with self._progress.step(f"{name}: starting molt_worker and Django, comparing answers", SERVER_SETUP):
            engine = worker.start(self._owned, self._logs / f"worker-{name}.log")
            arena_before = engine.stat()["arena"]["used_bytes"]
            server = servers.start(self._owned, name, engine.shm, self._logs / f"{name}.log")
            self._results.compared[name] = equal.check(server)
        for group in (ORDERS, TABLES):
            self._group(server, engine, group, "pair", self._settings.rounds, self._settings.seconds)
        if name in self._settings.curve_servers:
            for lines in self._settings.curve_lines:
                pair = at_lines(lines)
                self._group(server, engine, pair, "curve", self._settings.curve_rounds, self._settings.curve_seconds)
        if self._settings.arrival_share is not None:
            self._arrival(server, engine, self._settings.arrival_share)
        self._owned.end(server.child)
        worker.after_clients(engine, arena_before)
        self._results.left_behind += worker.stop(self._owned, engine)

    def _report(self, lines: int) -> None:
        """The report, each way of answering under a server of its own."""
        said = f"{lines:,} order lines, made once; a server for each way, answers"
        with self._progress.step(f"/report/: {said}", report_setup(lines)):
            dashboard.make(self._owned, lines, self._logs / "report_data.log")
            engine = worker.start(self._owned, self._logs / "worker-report.log")
            dashboard.load(self._owned, lines, engine, self._logs / "report_data.log")
            arena_before = engine.stat()["arena"]["used_bytes"]
            running = dashboard.start(self._owned, lines, engine, self._logs)
            self._results.compared["/report/"] = dashboard.check(running)
        group = [replace(one, lines=lines) for one in REPORTS]
        for one in group:
            self._load(running[one.name], engine, one, "warm-up", self._settings.warm_up, "warming up")
        for number in range(1, self._settings.report_rounds + 1):
            for one in group:
                said = f"round {number} of {self._settings.report_rounds}"
                round_ = self._load(running[one.name], engine, one, "report", self._settings.report_seconds, said)
                self._results.rounds.append(round_)
        for one in group:
            self._results.web_process_mb[one.name] = dashboard.web_process_mb(running[one.name])
            self._owned.end(running[one.name].child)
        worker.after_clients(engine, arena_before)
        self._results.left_behind += worker.stop(self._owned, engine)

    def _group(
        self, server: Server, engine: Worker, group: tuple[Scenario, ...], kind: str, rounds: int, seconds: float
    ) -> None:
        if kind == "pair":
            for scenario in group:
                self._load(server, engine, scenario, "warm-up", self._settings.warm_up, "warming up")
        for number in range(1, rounds + 1):
            for scenario in group:
                round_ = self._load(server, engine, scenario, kind, seconds, f"round {number} of {rounds}")
                self._results.rounds.append(round_)

    def _arrival(self, server: Server, engine: Worker, share: float) -> None:
        """The orders pair at one arrival rate: a share of what the baseline can answer."""
        plain = [
            one.generated.rps
            for one in self._results.rounds
            if (one.scenario, one.server, one.kind) == (BASELINE, server.name, "pair")
        ]
        rate = max(1.0, median(plain) * share)
        said = f"{rate:.0f} requests/s arriving"
        for scenario in (BASELINE, OFFLOAD):
            round_ = self._load(server, engine, scenario, "arrival", self._settings.seconds, said, rate)
            self._results.rounds.append(round_)

    def _load(
        self,
        server: Server,
        engine: Worker,
        scenario: Scenario,
        kind: str,
        seconds: float,
        said: str,
        rate: float | None = None,
    ) -> Round:
        users = self._settings.report_users if scenario.report else self._settings.users
        doing = f"{server.name}: {scenario.path}, {scenario.lines:,} {'rows' if scenario.table else 'lines'}, {said}"
        with self._progress.step(doing, seconds + K6_START):
            body = None if scenario.report else data.body(scenario)
            load = k6.Load(scenario.name, server.url, body, servers.TOKEN, seconds, users, rate)
            before = usage.of(server.pid), usage.of(engine.pid)
            log, summary = self._logs / f"k6-{server.name}.log", self._logs / f"k6-{server.name}.json"
            generated = k6.run(self._owned, load, log, summary)
            after = usage.of(server.pid), usage.of(engine.pid)
        engine.child.fail_if_ended()
        server.child.fail_if_ended()
        return Round(scenario, server.name, kind, users, rate, generated, *map(usage.since, before, after))
