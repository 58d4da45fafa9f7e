"""The long run goes on where one of its parts fails, and says so."""

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from bench import __main__ as main
from bench.runner import child, measure, micro, parts, report, timeline
from bench.runner.errors import BenchError
from bench.runner.owned import Owned
from bench.runner.plans import QUICK
from bench.runner.progress import RunProgress
from bench.runner.say import Say

NOTHING = replace(QUICK, servers=(), report_lines=0, **dict.fromkeys(part.name for part in parts.ALL))


def test_a_part_that_fails_ends_neither_the_others_nor_what_they_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    helpers: list[child.Child] = []

    def fails(owned: Owned, logs: Path, plan: Any, say: Say) -> dict:
        helpers.append(child.start(owned, "a helper", ["sleep", "600"], tmp_path / "helper.log"))
        raise BenchError("the worker is gone\nits last lines")

    broken = replace(parts.named("timeline"), measure=fails)
    found = {"echo": {}, "left_behind": []}
    fine = replace(parts.named("micro"), measure=lambda *_: found, tables=lambda _: [], verdicts=lambda _: [])
    monkeypatch.setattr(parts, "ALL", (broken, fine))
    settings = replace(NOTHING, timeline=timeline.CHECK, micro=micro.CHECK)
    console = Console(file=io.StringIO())
    with Owned() as owned:
        results = measure.Run(owned, settings, RunProgress(1.0, console), tmp_path).all()
        assert [one.ended() for one in helpers] == [True]
    assert (results.micro, results.timeline) == (found, None)
    assert results.failed == {"timeline": "the worker is gone\nits last lines"}
    (table,) = [table for table in parts.all_tables(results, []) if table.title == "Parts that failed"]
    assert table.rows == [["timeline", "the worker is gone"]]
    assert json.loads(json.dumps(report.details(settings, results, [])))["failed"] == results.failed
    with pytest.raises(BenchError, match="timeline failed: the worker is gone"):
        main.said(tmp_path, results)
