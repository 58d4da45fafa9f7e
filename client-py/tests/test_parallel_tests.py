"""Django's parallel test runner: every test process has workers of its own, and nothing is left of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import until

PROJECT = Path(__file__).with_name("parallel")


@pytest.mark.parametrize("start_method", ["fork", "spawn"])
def test_processes_share_no_worker_and_leave_none(start_method: str, tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "manage.py", "test", "--parallel", "2", "--pattern", "check_*.py"],
        cwd=PROJECT,
        env={**os.environ, "START_METHOD": start_method, "SEEN": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ran.returncode == 0 and "Ran 6 tests" in ran.stderr, ran.stderr
    seen = {path.name: path.read_text().split() for path in tmp_path.iterdir()}
    assert {name.split()[0] for name in seen} == {"First", "Second", "Third", "Fourth"}
    assert str(os.getpid()) not in {name.split()[1] for name in seen}, "they ran in children of the runner"
    assert len({shm for shm, _ in seen.values()}) == 4, "each has a name of its own"
    for shm, pid in seen.values():
        assert not Path("/dev/shm", shm.lstrip("/")).exists()
        until(lambda pid=pid: not _lives(int(pid)), f"the worker {pid} has ended")


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/comm").read_text().startswith("molt_worker")
    except OSError:
        return False
