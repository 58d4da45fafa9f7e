"""CPU time and memory of a process with all its descendants."""

import time
from contextlib import suppress
from dataclasses import dataclass

import psutil

MB = 1e6
REST_SECONDS, REST_SHARE = 0.25, 0.05
"""For how long a process is watched, and what share of one core it may take all the same."""


@dataclass(frozen=True)
class Usage:
    """CPU seconds since the tree began; memory as it is now, in MB (10^6 bytes).

    `rss_mb` counts a page that several processes share once for each, the arena included; `pss_mb` counts it once.
    """

    cpu_s: float = 0.0
    rss_mb: float = 0.0
    pss_mb: float = 0.0


def of(pid: int | None) -> Usage:
    """The usage of a process tree; of nothing for None. A process that ends while it is looked at counts as nothing."""
    if pid is None:
        return Usage()
    cpu = rss = pss = 0.0
    try:
        root = psutil.Process(pid)
        tree = [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return Usage()
    for process in tree:
        try:
            times = process.cpu_times()
            memory = process.memory_full_info()
        except (psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
        # Descendants that are gone live on in their parent's times, so a restarted worker is not lost.
        cpu += times.user + times.system + times.children_user + times.children_system
        rss += memory.rss
        pss += memory.pss
    return Usage(cpu, rss / MB, pss / MB)


def own(pid: int) -> tuple[float, float]:
    """Resident and proportional set size of one process, in MB."""
    memory = psutil.Process(pid).memory_full_info()
    return memory.rss / MB, memory.pss / MB


def children_pss_mb(pid: int) -> list[float]:
    """Proportional set size of each child of a process, in MB; of one that ends while it is looked at, nothing."""
    found = []
    for process in psutil.Process(pid).children():
        with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
            found.append(process.memory_full_info().pss / MB)
    return found


def cpu_seconds(pid: int) -> float:
    """CPU seconds of one process, all its threads, to the nanosecond (a process tree's are counted in hundredths)."""
    # The kernel's numbering of other processes' clocks, as clock_getcpuclockid(3) computes it.
    return time.clock_gettime(~pid << 3 | 2)


def at_rest(pid: int) -> bool:
    """Whether a process tree has next to nothing to do, watched for a quarter of a second. One that is gone has not: whoever
    waits for it is to learn that it has ended."""

    def spent() -> float:
        total = 0.0
        for process in (root, *root.children(recursive=True)):
            with suppress(OSError):
                total += cpu_seconds(process.pid)
        return total

    try:
        root = psutil.Process(pid)
        before = spent()
        time.sleep(REST_SECONDS)
        return spent() - before < REST_SECONDS * REST_SHARE
    except psutil.NoSuchProcess:
        return False


def since(before: Usage, after: Usage) -> Usage:
    """The CPU time between two looks, with the memory of the second."""
    return Usage(after.cpu_s - before.cpu_s, after.rss_mb, after.pss_mb)


def private_mb(pid: int) -> float:
    """What one process holds in memory beside shared memory, in MB: the arena is shared and has a figure of its own."""
    kib = {}
    with open(f"/proc/{pid}/status") as status:
        for line in status:
            name, _, value = line.partition(":")
            if name in ("VmRSS", "RssShmem"):
                kib[name] = int(value.split()[0])
    return (kib["VmRSS"] - kib["RssShmem"]) * 1024 / MB
