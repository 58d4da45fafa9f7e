"""The demo itself, in short, with the real worker, Django and k6: it reports, draws a page that shows what it has measured, and
leaves nothing whenever it stops."""

import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from bench.runner.child import until
from bench.runner.paths import ROOT

from .shown import assert_shown

SHORT = ["demo", "--server", "gunicorn", "--rounds", "1", "--seconds", "1", "--no-curve", "--report-lines", "20000"]
MARK = "MOLT_BENCH_TEST"


class Demo:
    """A demo in a process of its own. What it starts inherits a mark in the environment, by which it is found."""

    def __init__(self, folder: Path, results: Path) -> None:
        self.mark = uuid.uuid4().hex
        self.folder = folder
        self.results = results
        # Temporary folders of the run, the worker's socket among them, and with their names the segment's.
        env = {**os.environ, MARK: self.mark, "TMPDIR": str(folder)}
        command = [sys.executable, "-m", "bench", *SHORT, "--results", str(results)]
        self.process = subprocess.Popen(
            command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def running(self) -> dict[int, str]:
        """Command lines of what runs by its order."""
        found = {}
        for process in psutil.process_iter():
            try:
                if process.environ().get(MARK) == self.mark and process.status() != psutil.STATUS_ZOMBIE:
                    found[process.pid] = " ".join(process.cmdline())
            except psutil.Error:
                continue
        return {pid: command for pid, command in found.items() if pid != self.process.pid}

    def wait_for(self, command: str) -> None:
        """Waits until a command runs whose first words are these, an interpreter's name before them aside."""

        def seen() -> bool:
            assert self.process.poll() is None, f"the demo ended before {command} ran: {self.process.stdout.read()}"
            running = (" ".join(Path(word).name for word in one.split()[:3]) for one in self.running().values())
            return any(command in words for words in running)

        until(seen, f"{command} runs", 60)


def names() -> set[str]:
    """The shared-memory names of runs like this."""
    return {path.name for path in Path("/dev/shm").glob("*molt-bench-*")}


@contextmanager
def begun_demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """A short demo that has just begun; ended in any case, and it must leave nothing."""
    before = names()
    # Short, because a Unix socket's path may have 107 bytes only.
    begun = Demo(tmp_path_factory.mktemp("d"), tmp_path_factory.mktemp("results"))
    yield begun
    if begun.process.poll() is None:
        begun.process.send_signal(signal.SIGTERM)
    begun.process.communicate(timeout=60)
    assert begun.running() == {}
    assert names() - before == set()
    # Of the workers' spill folders their home is kept, with the lock that guards it; no worker's own.
    home = begun.folder / f"molt-spill-{os.getuid()}"
    assert {*begun.folder.rglob("*")} <= {home, home / "lock"}


@pytest.fixture
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """One that may be stopped."""
    with begun_demo(tmp_path_factory) as begun:
        yield begun


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """What a demo that ran to its end has printed, and where its results lie."""
    with begun_demo(tmp_path_factory) as begun:
        out, _ = begun.process.communicate(timeout=300)
        assert begun.process.returncode == 0, out
    return out, begun.results / "latest"


def test_it_measures_reports_and_leaves_nothing(measured: tuple[str, Path]) -> None:
    out, latest = measured
    assert "requests/s" in out and "p99.9" in out and "all equal" in out
    told = json.loads((latest / "summary.json").read_text())
    assert [one["name"] for one in told["scenarios"]] == [
        "baseline",
        "offload",
        "tuned",
        "baseline_table",
        "offload_table",
        "baseline_report",
        "offload_report",
        "polars_report",
        "duckdb_report",
    ]
    assert all(one["errors"] == 0 and one["rps"] > 0 and one["django_cpu_s"] > 0 for one in told["scenarios"])
    worked = {one["name"]: one["worker_cpu_s"] for one in told["scenarios"]}
    assert worked["offload"] > 10 * max(worked["baseline"], 0.01)
    assert told["ratios"]["gunicorn"]["offload"]["rps"] > 1
    assert "20,000 order lines" in out and "MB a web process" in out
    details = json.loads((latest / "details.json").read_text())
    assert set(details["web_process_mb"]) == {f"{way}_report" for way in ("baseline", "offload", "polars", "duckdb")}
    assert all(mb > 10 for mb in details["web_process_mb"].values())
    machine = told["machine"]
    assert machine["command"].startswith("python -m bench demo --server gunicorn") and machine["cores"] >= 1
    assert all(machine[name] for name in ("cpu", "kernel", "commit", "rustc", "python", "go", "k6", "polars", "duckdb"))


def test_it_ends_by_naming_the_page_that_it_has_written(measured: tuple[str, Path]) -> None:
    out, latest = measured
    last = out.strip().splitlines()[-1]
    assert last == f"Charts: {latest.resolve() / 'report.html'}" and (latest / "report.html").stat().st_size > 1 << 20


def test_its_page_shows_what_its_json_holds(measured: tuple[str, Path]) -> None:
    shown = assert_shown(measured[1])
    assert {
        "throughput-orders",
        "throughput-table",
        "distribution-orders-gunicorn",
        "report-speed",
        "report-memory",
    } <= shown


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("moment", ["molt_worker", "gunicorn", "k6 run"])
def test_it_can_be_stopped_at_any_moment(demo: Demo, moment: str, number: int) -> None:
    demo.wait_for(moment)
    demo.process.send_signal(number)
    out, _ = demo.process.communicate(timeout=180)  # a machine may be busy with other things
    assert demo.process.returncode == 128 + number, out
    assert "everything that was started has ended" in out
