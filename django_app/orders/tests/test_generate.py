"""The generator of order bodies: the frozen workload's size, and the same bytes every time."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from orders import baseline, generate, rules, tuned


def test_default_body_is_the_frozen_workload() -> None:
    body = generate.body()
    orders = json.loads(body)["orders"]
    assert len(orders) == 2_000
    assert abs(len(body) - 257_000) < 3_000
    assert {line["region"] for line in orders} == set(rules.TAX_RATES)
    assert len(rules.TAX_RATES) == 8
    assert len({line["customer"] for line in generate.orders(20_000)["orders"]}) == 500


def test_a_seed_fixes_the_body() -> None:
    assert generate.body(50, seed=4) == generate.body(50, seed=4)
    assert generate.body(50, seed=4) != generate.body(50, seed=5)


def test_command_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "orders.generate", "--lines", "20", "--seed", "9"]
    root = Path(generate.__file__).parents[1]
    subprocess.run([*command, "--out", str(tmp_path / "orders.json")], check=True, cwd=root)
    assert (tmp_path / "orders.json").read_bytes() == generate.body(20, seed=9)
    assert subprocess.run(command, check=True, cwd=root, stdout=subprocess.PIPE).stdout == generate.body(20, seed=9)


def test_tuned_answers_the_workload_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """It asks the baseline only about requests that are wrong; else its times would be the baseline's."""
    expected = baseline.summarize(generate.body())
    monkeypatch.delattr(baseline, "summarize")
    assert tuned.summarize(generate.body()) == expected
