"""Why a request took long: the first cause, in the order below, that accounts for half of what it took beyond the median.

| cause | what is known of it |
| --- | --- |
| generator | the request was sent late, or others were that were due before it was answered: the event loop stood still |
| gc | pauses of Python's collector, in the generator and in the web processes |
| plan | the worker made a plan for this request |
| page faults | major ones; minor ones at what a first touch of a page costs |
| steal | the hypervisor gave the processor to somebody else |
| scheduler (run delay) | a thread was ready and did not run, beyond what is usual; or one that only sleeps was woken late |
| worker queue | the worker says how long the request waited for a thread |
| worker run | the entry itself ran longer than usual, and none of the above says why |
| web server queue | more requests were in flight than the web server has threads, and the worker does not explain the time |
| client's event loop | at the client library: what the worker does not explain passes in the process that asks, or on the way |
| unknown | none of these |

What an earlier cause explains a later one may only pass on: behind a thread that did not run, requests queue.
"""

from array import array
from bisect import bisect_left, bisect_right
from collections import Counter
from dataclasses import dataclass
from statistics import median

from .evidence import Jitter, Look

GENERATOR, GC, PLAN, FAULTS, STEAL = "generator", "gc", "plan", "page faults", "steal"
SCHEDULER, QUEUE, RUN, WEB = "scheduler (run delay)", "worker queue", "worker run", "web server queue"
CLIENT, UNKNOWN = "client's event loop", "unknown"
ORDER = (GENERATOR, GC, PLAN, FAULTS, STEAL, SCHEDULER, QUEUE, RUN, WEB, CLIENT)
EXPLAINS = 0.5
FIRST_TOUCH = 2.4e-6
"""Seconds: 4 KiB at the 1.7 GB/s at which memory is touched first."""
WORST = 0.0001
"""The share of the requests that are looked at though they keep the limit."""


@dataclass(frozen=True)
class Stall:
    """Long requests that overlap: one event. `at` from the load's beginning, seconds."""

    at: float
    ms: float
    cause: str
    requests: int


class Evidence:
    """One load's requests, in the order in which they were due, and what was seen meanwhile."""

    def __init__(
        self,
        columns: dict[str, array],
        looks: list[Look],
        jitter: Jitter,
        pauses: list[tuple[float, float]],
        threads: int | None,
    ) -> None:
        """`pauses`: beginning and length, seconds. `threads`: of the web server; None where there is none."""
        order = sorted(range(len(columns["due"])), key=columns["due"].__getitem__)
        self.columns = {name: [column[at] for at in order] for name, column in columns.items()}
        self.ms = [(done - due) * 1000 for due, done in zip(self.columns["due"], self.columns["done"], strict=True)]
        self._looks, self._jitter, self._threads = looks, jitter, threads
        self._pauses = sorted(pauses)
        self._at = [one.at for one in looks]
        self._usual_delay = median(one.run_delay for one in looks) if looks else 0.0
        self._middle = median(self.ms) / 1000
        self._usual_run = median(self.columns["exec_us"]) / 1e6

    def cause(self, number: int) -> str:
        """Of one request."""
        excess = self.ms[number] / 1000 - self._middle
        found = self.seconds(number)
        return next((name for name in ORDER if found[name] >= EXPLAINS * excess), UNKNOWN)

    def seconds(self, number: int) -> dict[str, float]:
        """What each cause accounts for, for itself."""
        column = {name: values[number] for name, values in self.columns.items()}
        begin, sent, end = column["due"], column["sent"], column["done"]
        queue, run = column["queue_us"] / 1e6, column["exec_us"] / 1e6
        looks = self._between(begin, end)
        delay = sum(max(0.0, one.run_delay - self._usual_delay) for one in looks)
        rest = end - sent - queue - run
        crowded = self._threads is not None and column["in_flight"] > self._threads
        return {
            GENERATOR: max(sent - begin, self._sent_late(begin, end)),
            GC: sum(overlap(begin, end, at, at + length) for at, length in self._pauses),
            PLAN: run if column["plans"] else 0.0,
            FAULTS: end - begin
            if any(one.major_faults for one in looks)
            else FIRST_TOUCH * sum(one.minor_faults for one in looks),
            STEAL: sum(one.steal for one in looks),
            SCHEDULER: max(delay, self._jitter.during(begin, end) / 1000),
            QUEUE: queue,
            RUN: run - self._usual_run,
            WEB: rest if crowded else 0.0,
            CLIENT: rest if self._threads is None else 0.0,
        }

    def _between(self, begin: float, end: float) -> list[Look]:
        """The looks that cover some of that time: each tells of what was before it."""
        return self._looks[bisect_left(self._at, begin) : bisect_left(self._at, end) + 1]

    def _sent_late(self, begin: float, end: float) -> float:
        """The largest lag of the requests that were due meanwhile."""
        due, sent = self.columns["due"], self.columns["sent"]
        return max(
            (min(sent[at], end) - due[at] for at in range(bisect_left(due, begin), bisect_right(due, end))), default=0.0
        )

    def stalls(self, limit_ms: float | None) -> list[Stall]:
        """The requests above the limit and the worst 0.01%, those that overlap as one, the longest first."""
        worst = sorted(self.ms)[-max(1, int(len(self.ms) * WORST))]
        threshold = worst if limit_ms is None else min(worst, limit_ms)
        groups: list[list[int]] = []
        until = 0.0
        for number, ms in enumerate(self.ms):
            if ms < threshold:
                continue
            if not groups or self.columns["due"][number] > until:
                groups.append([])
            groups[-1].append(number)
            until = max(until, self.columns["done"][number])
        return sorted((self._stall(group) for group in groups), key=lambda one: -one.ms)

    def _stall(self, group: list[int]) -> Stall:
        longest = max(group, key=self.ms.__getitem__)
        at = self.columns["due"][group[0]] - self.columns["due"][0]
        return Stall(at, self.ms[longest], self.cause(longest), len(group))


def overlap(begin: float, end: float, other_begin: float, other_end: float) -> float:
    """How long two stretches of time have in common."""
    return max(0.0, min(end, other_end) - max(begin, other_begin))


def counted(stalls: list[Stall]) -> dict[str, int]:
    """Stalls by cause, the most frequent first."""
    return dict(Counter(one.cause for one in stalls).most_common())
