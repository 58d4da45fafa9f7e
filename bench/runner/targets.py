"""The targets, each with what was measured: reached or missed, never left out. Here are those of the loads and of single
calls; what else is measured is judged in its own module."""

from dataclasses import dataclass

from .figures import Figures, compare, servers, steadiness
from .results import Results

STEADY_ROUNDS = 5  # fewer say nothing about how steady the tail is


@dataclass(frozen=True)
class Verdict:
    """One target on one server (or on none, for single calls)."""

    target: str
    what: str
    measured: float | None
    """None: there is no such figure, however far one looks; that misses every bound."""
    must: float | None
    """None: the target is an aim only."""
    aim: float | None
    unit: str = ""
    at_least: bool = False

    def _meets(self, bound: float) -> bool:
        if self.measured is None:
            return False
        return self.measured >= bound if self.at_least else self.measured <= bound

    @property
    def verdict(self) -> str:
        """`missed`, `reached`, `reached, and the aim`; of an aim only `aim reached` or `aim missed`."""
        aimed = self.aim is not None and self._meets(self.aim)
        if self.must is None:
            return "aim reached" if aimed else "aim missed"
        if not self._meets(self.must):
            return "missed"
        return "reached, and the aim" if aimed else "reached"

    @property
    def bound(self) -> str:
        """What must be reached, and the aim."""
        sign = "≥" if self.at_least else "≤"
        must = "" if self.must is None else f"{sign} {self.must:g}{self.unit}"
        aim = "" if self.aim is None else f"(aim {sign} {self.aim:g}{self.unit})"
        return " ".join(part for part in (must, aim) if part)

    @property
    def said(self) -> str:
        """What was measured, for the table."""
        return "never" if self.measured is None else f"{self.measured:.3g}{self.unit}"


def of_loads(results: Results, every: list[Figures]) -> list[Verdict]:
    """S8 and S9 under each server."""
    out: list[Verdict] = []
    for server in servers(every):
        out += _pairs(every, server) + _tails(results, server)
    return out


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


def single(micro: dict) -> list[Verdict]:
    """S2, S3, S10, S12, S13 and S14: single calls, the worker and the client by themselves."""
    p50 = {(row["way"], row["peer"]): row["p50_us"] for row in micro["echo_64_bytes"]["rows"]}
    hot = p50["hot", "molt"] / p50["hot", "Unix socket"]
    apart = p50["hot, a core each", "molt"] / p50["hot, a core each", "Unix socket"]
    asleep = p50["asleep", "molt"] / p50["asleep", "Unix socket"]
    out = [
        Verdict("S2", "echo of 64 bytes, hot: against a Python Unix-socket echo", hot, 0.2, None, "x"),
        Verdict("S2", "the same with client and server held on a core each", apart, 0.2, None, "x"),
        Verdict("S2", "the same call by itself", p50["hot", "molt"], None, 4, " us"),
        Verdict("S2", "echo of 64 bytes, both asleep: against the same", asleep, 1.25, 1.05, "x"),
        Verdict("S3", "CPU of a call, client and worker, cores busy", micro["saturated"]["cpu_us"], 15, 6, " us"),
        Verdict("S12", "worker: time to first answer", micro["worker"]["first_answer_ms"], 150, 50, " ms"),
        Verdict("S12", "worker: memory when idle, arena aside", micro["worker"]["idle_mb"], 60, 30, " MB"),
        Verdict("S12", "worker: stripped binary", micro["worker"]["stripped_mb"], 125, 70, " MB"),
    ]
    if "import_ms" in micro:
        out.append(Verdict("S13", "client: time of its import", micro["import_ms"], 40, 15, " ms"))
    if "client_mb" in micro:
        out.append(Verdict("S13", "client: memory added to a Django process", micro["client_mb"], 10, 4, " MB"))
    out += [
        Verdict("S14", "compute with 3 numbers", micro["compute_us"]["3"], 20, 6, " us"),
        Verdict("S14", "compute with 10,000 numbers", micro["compute_us"]["10000"], 600, 300, " us"),
    ]
    return out + (break_even(micro["break_even"]) if "break_even" in micro else [])


def break_even(found: dict) -> list[Verdict]:
    """S10. Where offloading never pays there is no figure, and the target is missed."""
    what = "the smallest Python work for which offloading pays, view against view"
    return [Verdict("S10", what, found["us"], 150, 50, " us")]
