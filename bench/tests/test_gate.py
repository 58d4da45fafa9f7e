"""The regression gate: it lets this source pass, and finds a deliberate slowdown by name."""

import json
import shutil
import subprocess
import sys

import pytest

from bench.runner import gate
from bench.runner.paths import ROOT

needs_valgrind = pytest.mark.skipif(
    shutil.which("valgrind") is None, reason="valgrind is not installed: instructions cannot be counted"
)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bench", "gate", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)


@needs_valgrind
def test_the_hot_paths_take_no_more_instructions_than_the_baseline() -> None:
    if (counted_with := gate.baseline()[0]) != (here := gate.toolchain()):
        pytest.skip(f"the baseline is of {counted_with}, this is {here}: `python -m bench gate --accept` makes one of it")
    done = run()
    assert done.returncode == 0, done.stdout + done.stderr


@needs_valgrind
def test_a_deliberate_slowdown_is_found_and_named() -> None:
    before = gate.baseline()[1]["call"]
    slow = gate.count("call", slow=True)
    assert gate.worse({"call": slow}, {"call": before}) == ["call"]
    named = [row[0] for row in gate.difference("call", slow, before).rows]
    assert any("deliberate_slowdown" in name for name in named), named
    done = run("--path", "call", "--slow")
    assert "deliberate_slowdown" in done.stdout
    if gate.baseline()[0] == gate.toolchain():
        assert done.returncode == 1 and "hint: if it is worth it" in done.stdout, done.stdout + done.stderr


@needs_valgrind
def test_counts_are_the_same_in_every_run() -> None:
    first, second = gate.count("ring"), gate.count("ring")
    assert first == second


def test_a_path_that_gets_cheaper_passes_and_one_that_is_new_does_not() -> None:
    before = {"ring": gate.Counted(100.0, {"push": 100.0})}
    assert gate.worse({"ring": gate.Counted(50.0, {"push": 50.0})}, before) == []
    assert gate.worse({"ring": gate.Counted(101.9, {"push": 101.9})}, before) == []
    assert gate.worse({"ring": gate.Counted(102.1, {"push": 102.1})}, before) == ["ring"]
    assert gate.worse({"new": gate.Counted(1.0, {"push": 1.0})}, before) == ["new"]


def test_a_way_through_a_worker_that_busy_cores_made_longer_is_counted_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def taken(total: float) -> gate.Counted:
        return gate.Counted(total, {"run": total})

    before = {path: taken(100.0) for path in ("dispatch", "sql", "ring")}
    counts = {"dispatch": [106.0, 101.0], "sql": [120.0, 119.0]}
    monkeypatch.setattr(gate, "count", lambda path, slow: taken(counts[path].pop(0)))
    found = gate.recounted({"dispatch": taken(107.0), "sql": taken(121.0), "ring": taken(110.0)}, before)
    assert {path: one.total for path, one in found.items()} == {"dispatch": 101.0, "sql": 119.0, "ring": 110.0}
    assert gate.worse(found, before) == ["sql", "ring"], "what is slower stays so, and a single process is counted once"


def test_the_baseline_knows_every_path() -> None:
    assert set(json.loads(gate.BASELINE.read_text())["paths"]) == set(gate.PATHS)
