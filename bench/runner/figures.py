"""From rounds to figures: medians, ratios, and the curve. Nothing here measures and nothing here writes."""

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median

from .results import Results, Round
from .scenarios import LINES, Scenario

MAIN_RATIOS = {  # name in summary.json: (what is offloaded, what it is compared with)
    "offload": ("offload", "baseline"),
    "offload_vs_tuned": ("offload", "tuned"),
    "table": ("offload_table", "baseline_table"),
    "report": ("offload_report", "baseline_report"),
}

KINDS = {"report": "report"}  # of the rounds behind a ratio, where they are not those of a pair


@dataclass(frozen=True)
class Figures:
    """One scenario on one server: the median of its rounds in everything but the errors, which are added up."""

    scenario: Scenario
    server: str
    kind: str
    users: int
    rate: float | None
    rounds: int
    requests: float
    seconds: float
    rps: float
    rps_from: float  # of the slowest round
    rps_to: float
    latency: dict[str, float]  # percentile as k6 names it: ms
    samples: int  # requests of all rounds: what the percentiles come from
    errors: int
    dropped: int
    django_cpu_s: float
    worker_cpu_s: float
    generator_cpu_s: float
    django_rss_mb: float
    django_pss_mb: float
    worker_rss_mb: float
    worker_pss_mb: float

    @property
    def per_cpu_second(self) -> float:
        """Requests per CPU second of Django and worker together; 0 where there were none."""
        spent = self.django_cpu_s + self.worker_cpu_s
        return self.requests / spent if spent else 0.0

    @property
    def django_ms(self) -> float:
        """Milliseconds of CPU that Django spends on one request."""
        return self.django_cpu_s * 1000 / self.requests if self.requests else 0.0


def figures(results: Results) -> list[Figures]:
    """The figures of every scenario, in the order in which they were first measured."""
    grouped: dict[tuple[str, str, Scenario], list[Round]] = {}
    for measured in results.rounds:
        grouped.setdefault((measured.server, measured.kind, measured.scenario), []).append(measured)
    return [_figures(rounds) for rounds in grouped.values()]


def _figures(rounds: list[Round]) -> Figures:
    def middle(values: Iterable[float]) -> float:
        return float(median(values))

    one = rounds[0]
    good = [r.generated.requests - r.generated.errors for r in rounds]
    return Figures(
        scenario=one.scenario,
        server=one.server,
        kind=one.kind,
        users=one.users,
        rate=one.rate,
        rounds=len(rounds),
        requests=middle(good),
        seconds=middle(r.generated.seconds for r in rounds),
        rps=middle(r.generated.rps for r in rounds),
        rps_from=min(r.generated.rps for r in rounds),
        rps_to=max(r.generated.rps for r in rounds),
        latency={p: middle(r.generated.latency[p] for r in rounds) for p in one.generated.latency},
        samples=sum(good),
        errors=sum(r.generated.errors for r in rounds),
        dropped=sum(r.generated.dropped for r in rounds),
        django_cpu_s=middle(r.django.cpu_s for r in rounds),
        worker_cpu_s=middle(r.worker.cpu_s for r in rounds),
        generator_cpu_s=middle(r.generated.generator_cpu_s for r in rounds),
        django_rss_mb=middle(r.django.rss_mb for r in rounds),
        django_pss_mb=middle(r.django.pss_mb for r in rounds),
        worker_rss_mb=middle(r.worker.rss_mb for r in rounds),
        worker_pss_mb=middle(r.worker.pss_mb for r in rounds),
    )


def find(every: list[Figures], name: str, server: str, kind: str = "pair", lines: int | None = None) -> Figures | None:
    """The figures of one scenario, or None where it was not measured."""
    for one in every:
        if (one.scenario.name, one.server, one.kind) == (name, server, kind) and lines in (None, one.scenario.lines):
            return one
    return None


def servers(every: list[Figures]) -> list[str]:
    """The servers that were measured, in order."""
    return list(dict.fromkeys(one.server for one in every))


Ratio = dict[str, float | None]


def ratio(one: Figures, other: Figures) -> Ratio:
    """How many times the requests per second (above 1: `one` serves more), and the share of the other's p99 (below 1:
    `one` is quicker). None where the other served nothing."""

    def share(a: float, b: float) -> float | None:
        return round(a / b, 4) if b else None

    return {"rps": share(one.rps, other.rps), "p99": share(one.latency["p(99)"], other.latency["p(99)"])}


def compare(
    every: list[Figures], name: str, other: str, server: str, kind: str = "pair", lines: int | None = None
) -> Ratio | None:
    """The ratio of two scenarios, or None where one was not measured."""
    one, two = find(every, name, server, kind, lines), find(every, other, server, kind, lines)
    return None if one is None or two is None else ratio(one, two)


def ratios(every: list[Figures]) -> dict[str, dict[str, Ratio]]:
    """The `ratios` of summary.json."""
    out: dict[str, dict[str, Ratio]] = {}
    for server in servers(every):
        found = {name: compare(every, *pair, server, KINDS.get(name, "pair")) for name, pair in MAIN_RATIOS.items()}
        out[server] = {name: one for name, one in found.items() if one is not None}
    return out


@dataclass(frozen=True)
class Point:
    """The order pair at one number of lines: what offloading saves and what that brings."""

    server: str
    lines: int
    saved_ms: float  # of Django's CPU per request
    plain_rps: float
    offload_rps: float
    plain_p99_ms: float
    offload_p99_ms: float
    ratio_from: float  # slowest against fastest round: no pairing of rounds is less
    ratio_to: float

    @property
    def ratio(self) -> float:
        return self.offload_rps / self.plain_rps


def curve(every: list[Figures]) -> list[Point]:
    """The points measured, by server and lines; the frozen workload's own point comes from the main rounds."""
    points = []
    for plain in every:
        if plain.scenario.name != "baseline" or plain.kind == "arrival" or not plain.rps_from:
            continue
        offload = find(every, "offload", plain.server, plain.kind, plain.scenario.lines)
        if offload is not None:
            points.append(
                Point(
                    server=plain.server,
                    lines=plain.scenario.lines,
                    saved_ms=plain.django_ms - offload.django_ms,
                    plain_rps=plain.rps,
                    offload_rps=offload.rps,
                    plain_p99_ms=plain.latency["p(99)"],
                    offload_p99_ms=offload.latency["p(99)"],
                    ratio_from=offload.rps_from / plain.rps_to,
                    ratio_to=offload.rps_to / plain.rps_from,
                )
            )
    curves = {point.server for point in points if point.lines != LINES}
    return sorted((p for p in points if p.server in curves), key=lambda p: (p.server, p.lines))


@dataclass(frozen=True)
class Steadiness:
    """How the worst latencies hold over the rounds of one scenario."""

    tail: float  # the largest p99.9 / p99 of a round
    spread: float  # the largest p99.9 of a round against the smallest
    rounds: int


def steadiness(results: Results, name: str, server: str) -> Steadiness | None:
    """The steadiness of one scenario's main rounds, or None where it was not measured."""
    rounds = [
        r.generated.latency for r in results.rounds if (r.scenario.name, r.server, r.kind) == (name, server, "pair")
    ]
    if not rounds:
        return None
    worst = [latency["p(99.9)"] for latency in rounds]
    return Steadiness(
        max(latency["p(99.9)"] / latency["p(99)"] for latency in rounds), max(worst) / min(worst), len(rounds)
    )
