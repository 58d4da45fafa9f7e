"""Importing, finding the worker, and what attaching to nothing says."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import molt_accel
from molt_accel import _find_worker


def test_importing_loads_nothing_that_a_web_process_may_not_need() -> None:
    code = "import sys, json, molt_accel; print(json.dumps(sorted(sys.modules)))"
    loaded = json.loads(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout)
    heavy = {"typing", "asyncio", "ctypes", "subprocess", "cffi", "pycparser", "pyarrow", "django", "decimal", "uuid"}
    assert heavy.isdisjoint(loaded)


def test_the_package_is_typed_and_names_what_it_exports() -> None:
    assert (Path(molt_accel.__file__).parent / "py.typed").exists()
    for name in molt_accel.__all__:
        assert getattr(molt_accel, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        molt_accel.nothing  # noqa: B018


def test_attaching_to_nothing_says_in_one_sentence_what_is_missing_and_how_to_start_it() -> None:
    with pytest.raises(molt_accel.MoltUnavailable) as refused:
        molt_accel.attach(shm="/nothing")
    message = str(refused.value)
    assert "/nothing" in message and "hint:" in message and "molt_worker" in message
    assert "\n" not in message


def test_a_client_attaches_at_its_first_use_only() -> None:
    client = molt_accel.Client("/nothing")
    assert repr(client) == "<molt_accel.Client /nothing not attached>"
    with pytest.raises(molt_accel.MoltUnavailable):
        client.call("echo", 1)


def test_attaching_waits_no_longer_than_told() -> None:
    import time

    start = time.monotonic()
    with pytest.raises(molt_accel.MoltUnavailable):
        molt_accel.attach("/nothing", wait=0.25)
    assert 0.2 <= time.monotonic() - start < 10.0


def test_a_closed_client_says_so() -> None:
    client = molt_accel.Client("/nothing")
    client.close()
    client.close()
    with pytest.raises(molt_accel.MoltClosed, match=r"the client of /nothing is closed\. hint: attach"):
        client.call("echo", 1)


def test_the_worker_is_found_by_its_variable_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    binary = tmp_path / "molt_worker"
    binary.touch(mode=0o755)
    monkeypatch.setenv("MOLT_WORKER", str(binary))
    assert _find_worker.find_worker() == binary
    monkeypatch.delenv("MOLT_WORKER")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(_find_worker.sysconfig, "get_path", lambda name: str(tmp_path / "scripts"))
    monkeypatch.setattr(_find_worker.sys, "executable", str(tmp_path / "bin" / "python"))
    assert _find_worker.find_worker() == binary


def test_a_worker_that_is_nowhere_lists_where_it_was_sought(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MOLT_WORKER", str(tmp_path / "gone"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    with pytest.raises(FileNotFoundError) as missing:
        molt_accel.spawn()
    assert not (tmp_path / "temporary").exists()
    assert f"MOLT_WORKER: {tmp_path / 'gone'}" in str(missing.value) and "hint:" in str(missing.value)
    monkeypatch.delenv("MOLT_WORKER")
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(_find_worker, "__file__", str(tmp_path / "a" / "b.py"))
    monkeypatch.setattr(_find_worker.sysconfig, "get_path", lambda name: str(tmp_path / "scripts"))
    monkeypatch.setattr(_find_worker.sys, "executable", str(tmp_path / "bin" / "python"))
    with pytest.raises(FileNotFoundError) as missing:
        _find_worker.find_worker()
    for place in (tmp_path / "scripts" / "molt_worker", tmp_path / "bin" / "molt_worker", "PATH: not there"):
        assert str(place) in str(missing.value)
