"""docs/tables.md, line by line, with a real worker: what it defines, what it types, and what it says is answered."""

from __future__ import annotations

import doctest
import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from django.test import RequestFactory

from molt_accel import testing
from molt_accel.django import clients

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "tables.md").read_text()
BLOCKS = re.findall(r"```(python|pycon|json)\n(.*?)```", PAGE, re.DOTALL)
GET = re.compile(r"`GET (?P<path>/limits/\?day=[^`]*)`(?: answers `(?P<answer>\[.*?\])`| is a (?P<status>\d{3}))")
ARROW = "application/vnd.apache.arrow.stream"


def test_the_page_is_true_from_top_to_bottom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (manifest,) = [text for kind, text in BLOCKS if kind == "json"]
    (tmp_path / "molt_exports.json").write_text(manifest)
    names: dict[str, Any] = {"__name__": "docs"}
    with testing.worker(exports=tmp_path / "molt_exports.json", arena="32MiB"):
        for number, (kind, text) in enumerate(BLOCKS):
            if kind == "python":
                exec(compile(text, f"docs/tables.md, block {number}", "exec"), names)
                if "def limits(" in text:
                    check_the_view(names["limits"])
            elif kind == "pycon":
                typed(text, names, f"docs/tables.md, block {number}")
        clients.close()


def typed(text: str, names: dict[str, Any], where: str) -> None:
    """Types a session and compares what it shows, `...` standing for anything."""
    session = doctest.DocTestParser().get_doctest(text, names, where, where, 0)
    session.globs = names  # it has made a copy, and what a session defines is there for the next
    assert session.examples, where
    said: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    runner.run(session, out=said.append, clear_globs=False)
    assert not runner.failures, "".join(said)


def check_the_view(limits: Any) -> None:
    """Asks what the page says is asked."""
    asked = list(GET.finditer(PAGE))
    assert [one["status"] for one in asked] == [None, "400"]
    for one in asked:
        response = limits(RequestFactory().get(one["path"]))
        assert response.status_code == int(one["status"] or 200)
        if one["answer"]:
            assert response.content.decode() == one["answer"]
        else:
            assert 'parameter \\"day\\"' in response.content.decode()
    response = limits(RequestFactory().get(asked[0]["path"], headers={"Accept": ARROW}))
    answered = pa.ipc.open_stream(response.content).read_all().to_pylist()
    assert [row | {"total": str(row["total"])} for row in answered] == json.loads(asked[0]["answer"])


def test_the_readme_and_the_how_to_lead_to_the_page() -> None:
    root = Path(__file__).resolve().parents[2]
    assert "(docs/tables.md)" in (root / "README.md").read_text()
    assert "(tables.md)" in (root / "docs" / "django.md").read_text()
