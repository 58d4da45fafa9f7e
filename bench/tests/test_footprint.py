"""What the client library costs a Django process: its import, and its memory with one call made."""

from pathlib import Path

import pytest

from bench.runner import footprint, worker
from bench.runner.owned import Owned


def test_an_import_costs_more_than_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 1 < footprint.import_ms(rounds=5) < 500
    monkeypatch.setattr(footprint, "IMPORT", "import time; time.sleep(0.2)")
    assert footprint.import_ms(rounds=3) == pytest.approx(200, abs=60)


def test_a_process_gains_memory_by_a_call(tmp_path: Path) -> None:
    with Owned() as owned:
        engine = worker.start(owned, tmp_path / "worker.log")
        gained = footprint.client_mb(owned, engine, tmp_path, processes=2)
        worker.stop(owned, engine)
    # The arena is shared and not counted; the library and what it imports are.
    assert 0.5 < gained < 40
