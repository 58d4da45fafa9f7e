"""What the run asks of the worker when the clients have gone, and what it removes when the worker could not."""

from pathlib import Path

import pytest

from bench.runner import paths, worker
from bench.runner.child import Child
from bench.runner.errors import BenchError
from bench.runner.worker import Worker


class Running(Child):
    """A child that is there without a process."""

    def __init__(self) -> None:
        self.what, self.pid, self.log = "molt_worker", 1, Path("log")

    def fail_if_ended(self) -> None:
        pass


class Told(Worker):
    """A worker whose segment shows one thing after the other, the last one for ever."""

    def __init__(self, *stats: tuple[int, int]) -> None:
        super().__init__("/molt-bench-test", Path(), Running())
        self.stats = list(stats)

    def stat(self) -> dict:
        sessions, used = self.stats.pop(0) if len(self.stats) > 1 else self.stats[0]
        return {"sessions": [{"slot": number} for number in range(sessions)], "arena": {"used_bytes": used}}


def test_it_waits_until_sessions_and_bytes_are_taken_back() -> None:
    told = Told((2, 4096), (1, 4096), (0, 4096), (0, 1024))
    worker.after_clients(told, arena_before=1024)
    assert len(told.stats) == 1


@pytest.mark.parametrize(("sessions", "used"), [(1, 0), (0, 2048)])
def test_what_stays_behind_is_an_error(sessions: int, used: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "FAREWELL_SECONDS", 0.05)
    with pytest.raises(BenchError, match=rf"{sessions} sessions and {used} used arena bytes \(1024 before"):
        worker.after_clients(Told((sessions, used)), arena_before=1024)


def test_names_of_a_killed_worker_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "SHM", tmp_path)
    for name in ("molt-bench-a", "molt-bench-a.123", "molt-bench-b", "molt0"):
        (tmp_path / name).touch()
    worker.unlink("/molt-bench-a")
    assert {path.name for path in tmp_path.iterdir()} == {"molt-bench-b", "molt0"}


def test_a_worker_that_is_not_built_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "BINARIES", tmp_path)
    with pytest.raises(BenchError, match=f"{tmp_path}/molt_worker is not built; hint: `make build`"):
        paths.binary("molt_worker")
