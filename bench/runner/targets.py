"""The targets that a run can judge, each with what was measured: reached or missed, never left out."""

from dataclasses import dataclass

from .figures import Figures, compare, servers, steadiness
from .measure import Results

HANDED_ROWS = 10_000  # of S6
STEADY_ROUNDS = 5  # fewer say nothing about how steady the tail is


@dataclass(frozen=True)
class Verdict:
    """One target on one server (or on none, for single calls)."""

    target: str
    what: str
    measured: float
    must: float
    aim: float | None
    unit: str = ""
    at_least: bool = False

    def _meets(self, bound: float) -> bool:
        return self.measured >= bound if self.at_least else self.measured <= bound

    @property
    def verdict(self) -> str:
        """`missed`, `reached` or `reached, and the aim`."""
        if not self._meets(self.must):
            return "missed"
        return "reached" if self.aim is None or not self._meets(self.aim) else "reached, and the aim"

    @property
    def bound(self) -> str:
        """What must be reached, and the aim."""
        sign = "≥" if self.at_least else "≤"
        aim = "" if self.aim is None else f" (aim {sign} {self.aim:g}{self.unit})"
        return f"{sign} {self.must:g}{self.unit}{aim}"


def verdicts(results: Results, every: list[Figures]) -> list[Verdict]:
    """All targets that these results say something about."""
    out: list[Verdict] = []
    for server in servers(every):
        out += _pairs(every, server) + _tails(results, server)
    out += transport(results.transport) if results.transport else []
    out += questions(results.questions) if results.questions else []
    return out + (_single(results.micro) if results.micro else [])


def _pairs(every: list[Figures], server: str) -> list[Verdict]:
    out: list[Verdict] = []

    def judge(target: str, one: str, other: str, figure: str, must: float, aim: float | None) -> None:
        found = compare(every, one, other, server)
        measured = found[figure] if found else None
        if measured is not None:
            what = f"{server}: {one} against {other}, {'requests/s' if figure == 'rps' else figure}"
            out.append(Verdict(target, what, measured, must, aim, "x", at_least=figure == "rps"))

    judge("S8", "offload", "baseline", "rps", 5, 10)
    judge("S8", "offload", "baseline", "p99", 0.333, 0.1)
    judge("S8", "offload", "tuned", "rps", 2, None)
    judge("S9", "offload_table", "baseline_table", "rps", 8, 20)
    return out


def _tails(results: Results, server: str) -> list[Verdict]:
    steady = steadiness(results, "offload", server)
    if steady is None:
        return []
    out = [Verdict("S8", f"{server}: offload, p99.9 against p99, worst round", steady.tail, 3, None, "x")]
    if steady.rounds >= STEADY_ROUNDS:
        what = f"{server}: offload, p99.9 of the worst of {steady.rounds} rounds against the best"
        out.append(Verdict("S8", what, steady.spread, 1.3, None, "x"))
    return out


def transport(found: dict) -> list[Verdict]:
    """S1 and S4, and that spinning costs nothing. What a missing peer leaves unmeasured is not judged: tables say so."""
    p50 = {row["peer"]: row["p50_us"] for row in found["rows"] if row["part"] == "hot"}
    rate = {row["peer"]: row["calls_per_s"] for row in found["rows"] if row["part"] == "spinning"}
    out: list[Verdict] = []

    def judge(target: str, what: str, one: float | None, other: float | None, must: float, aim=None, **more) -> None:
        if one is not None and other is not None:
            out.append(Verdict(target, what, one / other, must, aim, "x", **more))

    molt, floor = p50.get("molt"), p50.get("bare cache line")
    judge("S1", "Rust to Rust, 64 bytes, hot: against iceoryx2", molt, p50.get("iceoryx2"), 1)
    judge("S1", "the same against the bare cache line: an aim only", molt, floor, 2.5)
    with_, without = (rate.get(name) for name in ("molt, spinning while it pays", "molt, never spinning"))
    what = "16 clients on busy cores: calls/s with spinning against without"
    judge("spin", what, with_, without, 0.97, at_least=True)
    if found["placing"]:
        what = f"placing a table of {found['placing']['bytes'] / 1e6:.0f} MB: bytes/s against a warm memcpy"
        out.append(Verdict("S4", what, found["placing"]["ratio"], 0.7, 0.95, "x", at_least=True))
    return out


def questions(found: dict) -> list[Verdict]:
    """S5, S6 and S7; of S7 the question that fares worst."""

    def times(part: str, field: str) -> dict[object, dict[str, float]]:
        grouped: dict[object, dict[str, float]] = {}
        for row in found[part]:
            grouped.setdefault(row[field], {})[row["engine"]] = row["ms"]
        return grouped

    us = found["handing"]["us"]
    out = [
        Verdict("S5", "a huge resident table to a query, against one of 1 KiB", us["huge"] / us["tiny"], 2, 1.05, "x")
    ]
    handed = times("handed", "rows").get(HANDED_ROWS, {})
    if {"DuckDB", "Polars"} <= set(handed):
        what = f"{HANDED_ROWS:,} rows handed over with the question, an entry: against the faster of DuckDB and Polars"
        ratio = handed["molt, an entry"] / min(handed["DuckDB"], handed["Polars"])
        out.append(Verdict("S6", what, ratio, 0.333, 0.2, "x"))
    resident = times("resident", "question")
    for peers, must, aim in ((("DuckDB",), 1, None), (("DuckDB", "Polars, streaming"), None, 1)):
        ratios = {
            question: ms["molt"] / min(ms[peer] for peer in peers)
            for question, ms in resident.items()
            if set(peers) <= set(ms)
        }
        if ratios:
            worst = max(ratios, key=lambda question: ratios[question])
            what = f'resident rows, against the faster of {" and ".join(peers)}: "{worst}", the worst of {len(ratios)}'
            out.append(
                Verdict("S7", what if aim is None else f"{what}: an aim only", ratios[worst], must or aim, None, "x")
            )
    return out


def _single(micro: dict) -> list[Verdict]:
    p50 = {(row["way"], row["peer"]): row["p50_us"] for row in micro["echo_64_bytes"]["rows"]}
    hot = p50["hot", "molt"] / p50["hot", "Unix socket"]
    asleep = p50["asleep", "molt"] / p50["asleep", "Unix socket"]
    return [
        Verdict("S2", "echo of 64 bytes, hot: against a Python Unix-socket echo", hot, 0.2, None, "x"),
        Verdict("S2", "the same call by itself: an aim only", p50["hot", "molt"], 4, None, " us"),
        Verdict("S2", "echo of 64 bytes, both asleep: against the same", asleep, 1.25, 1.05, "x"),
        Verdict("S3", "CPU of a call, client and worker, cores busy", micro["saturated"]["cpu_us"], 15, 6, " us"),
        Verdict("S12", "worker: time to first answer", micro["worker"]["first_answer_ms"], 150, 50, " ms"),
        Verdict("S12", "worker: memory when idle, arena aside", micro["worker"]["idle_mb"], 60, 30, " MB"),
        Verdict("S12", "worker: stripped binary", micro["worker"]["stripped_mb"], 125, 70, " MB"),
        Verdict("S14", "compute with 3 numbers", micro["compute_us"]["3"], 20, 6, " us"),
        Verdict("S14", "compute with 10,000 numbers", micro["compute_us"]["10000"], 600, 300, " us"),
        *(break_even(micro["break_even"]) if "break_even" in micro else []),
    ]


def break_even(found: dict) -> list[Verdict]:
    """S10. Where offloading never pays there is no figure: the table says so."""
    what = "the smallest Python work for which offloading pays, view against view"
    return [] if found["us"] is None else [Verdict("S10", what, found["us"], 150, 50, " us")]
