"""What happened on the machine while a load ran, for the causes of its longest requests.

A thread of the runner looks twenty times a second at what the kernel counts for the processes watched: page faults, the time
that their threads were ready to run and did not (run delay), and what the hypervisor took (steal). Beside it a process that
only sleeps, five milliseconds at a time, writes down when it was woken late: that is the machine's own noise.
"""

import json
import os
import sys
import threading
import time
from bisect import bisect_left
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from . import child
from .owned import Owned
from .paths import ROOT

EVERY = 0.05
THREADS_EVERY = 40
"""Looks after which the threads of the processes are listed anew."""
TICK = 1 / os.sysconf("SC_CLK_TCK")
JITTER_PERIOD = 0.005
JITTER_LATE_MS = 1.0
"""A wake-up later than this is written down."""


@dataclass(frozen=True)
class Look:
    """What has been added since the look before. Times in seconds."""

    at: float
    minor_faults: int
    major_faults: int
    run_delay: float
    """Of the thread that waited longest."""
    steal: float


class Watch(threading.Thread):
    """Looks at processes until it is told to stop."""

    def __init__(self, pids: Iterable[int]) -> None:
        super().__init__(name="watch", daemon=True)
        self._pids = list(pids)
        self._over = threading.Event()
        self._files: dict[str, int] = {}
        self._before: dict[str, tuple[float, ...]] = {}
        self.looks: list[Look] = []
        self.cpu_s = 0.0

    def add(self, pid: int) -> None:
        """One process more."""
        self._pids.append(pid)

    def run(self) -> None:
        """Looks, and remembers only what has changed."""
        number = 0
        while not self._over.wait(EVERY):
            if number % THREADS_EVERY == 0:
                self._list()
            self.looks.append(self._look())
            number += 1
        self.cpu_s = time.thread_time()
        for file in self._files.values():
            os.close(file)

    def stop(self) -> list[Look]:
        """All looks."""
        self._over.set()
        self.join()
        return self.looks

    def _list(self) -> None:
        wanted = {"/proc/stat"}
        for pid in list(self._pids):
            with suppress(OSError):
                wanted |= {f"/proc/{pid}/task/{tid}/schedstat" for tid in os.listdir(f"/proc/{pid}/task")}
                wanted.add(f"/proc/{pid}/stat")
        for path in self._files.keys() - wanted:
            os.close(self._files.pop(path))
        for path in wanted - self._files.keys():
            with suppress(OSError):
                self._files[path] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def _look(self) -> Look:
        minor = major = steal = delay = 0.0
        for path, file in self._files.items():
            try:
                told = os.pread(file, 1024, 0)
            except OSError:
                continue  # it has ended
            now = parsed(path, told)
            before = self._before.get(path)
            self._before[path] = now
            if before is None:
                continue
            added = [one - other for one, other in zip(now, before, strict=True)]
            if path == "/proc/stat":
                steal = added[0] * TICK
            elif path.endswith("/schedstat"):
                delay = max(delay, added[0] / 1e9)
            else:
                minor, major = minor + added[0], major + added[1]
        return Look(time.monotonic(), int(minor), int(major), delay, steal)


def parsed(path: str, told: bytes) -> tuple[float, ...]:
    """Of /proc/stat the stolen ticks; of a thread its run delay; of a process its minor and major faults."""
    if path == "/proc/stat":
        return (float(told.split(b"\n", 1)[0].split()[8]),)
    if path.endswith("/schedstat"):
        return (float(told.split()[1]),)
    rest = told[told.rindex(b")") + 2 :].split()  # the name before it may hold anything
    return float(rest[7]), float(rest[9])


@dataclass(frozen=True)
class Jitter:
    """How late somebody was woken who only sleeps: `late` are moments and milliseconds, in order."""

    wakes: int
    cpu_share: float
    late: list[tuple[float, float]]

    def during(self, begin: float, end: float) -> float:
        """The longest delay of a wake-up between two moments, milliseconds."""
        at = bisect_left(self.late, (begin,))
        longest = 0.0
        while at < len(self.late) and self.late[at][0] - self.late[at][1] / 1000 <= end:
            longest = max(longest, self.late[at][1])
            at += 1
        return longest

    def told(self) -> dict:
        """For the results."""
        return {
            "wakes": self.wakes, "late": len(self.late), "longest_ms": round(max((ms for _, ms in self.late), default=0.0), 2),
            "cpu_share": round(self.cpu_share, 4),
        }  # fmt: skip


def probe(owned: Owned, logs: Path, seconds: float) -> tuple[child.Child, Path]:
    """Starts the sleeper."""
    out = logs / "jitter.json"
    command: child.Command = [sys.executable, "-m", "bench.runner.evidence", str(seconds), out]
    return child.start(owned, "the jitter probe", command, logs / "jitter.log", cwd=ROOT), out


def jitter(place: Path) -> Jitter:
    """What the sleeper has seen."""
    told = json.loads(place.read_text())
    return Jitter(told["wakes"], told["cpu_share"], [(at, ms) for at, ms in told["late"]])


def sleep_and_tell(seconds: float, out: Path) -> None:
    """Sleeps five milliseconds at a time."""
    late, wakes, began = [], 0, time.monotonic()
    spent, due = time.process_time(), began
    while due < began + seconds:
        due += JITTER_PERIOD
        if (left := due - time.monotonic()) > 0:
            time.sleep(left)
        now = time.monotonic()
        wakes += 1
        if (ms := (now - due) * 1000) > JITTER_LATE_MS:
            late.append((now, ms))
            due = now  # one delay counts once
    share = (time.process_time() - spent) / (time.monotonic() - began)
    out.write_text(json.dumps({"wakes": wakes, "cpu_share": share, "late": late}))


if __name__ == "__main__":
    sleep_and_tell(float(sys.argv[1]), Path(sys.argv[2]))
