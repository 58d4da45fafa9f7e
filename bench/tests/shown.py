"""What a page shows in Chromium against the JSON that lies beside it."""

import json
from pathlib import Path

from bench.runner import report

from . import chromium
from .drawn import expected


def assert_shown(folder: Path) -> set[str]:
    """The page of a folder shows what its JSON holds; gives the names of the charts."""
    charts, failures = chromium.shown(folder / report.PAGE)
    assert failures == [], failures
    told = expected(json.loads((folder / "details.json").read_text()))
    names = {chart["name"] for chart in charts}
    assert names == set(told), names ^ set(told)
    for chart in charts:
        drawn = {trace["name"]: (trace["x"], trace["y"]) for trace in chart["traces"]}
        for name, (x, y) in told[chart["name"]].items():
            assert drawn[name] == (x, y), f"{chart['name']}: {name}"
        assert chart["width"] > 300 and chart["title"] and chart["says"].endswith((".", ")"))
        marks = sum(value is not None for x, y in told[chart["name"]].values() for value in y)
        lines = sum(len(y) > 1 for _, y in told[chart["name"]].values())
        # A mark for every number; of a distribution, which has none, a line for every side.
        assert chart["points"] >= marks or chart["lines"] >= lines > 0, chart["name"]
    return names
