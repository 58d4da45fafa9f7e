"""docs/django.md: every snippet runs, and what it lists is what there is. The quickstart has test_quickstart.py."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from django.core.management import get_commands
from django.http import HttpRequest
from django.test import Client, RequestFactory

from molt_accel import testing
from molt_accel.django import settings, signals

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "django.md").read_text()
SNIPPETS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def names_of(snippet: str) -> dict[str, Any]:
    """What a snippet defines, when it is a module of its own."""
    module: dict[str, Any] = {"__name__": "docs"}
    exec(compile(snippet, "docs/django.md", "exec"), module)
    return module


def _last_name(snippet: str) -> str:
    last = ast.parse(snippet).body[-1]
    return getattr(last, "name", None) or ast.unparse(last).split()[0]


@pytest.mark.parametrize("snippet", SNIPPETS, ids=_last_name)
def test_every_snippet_is_a_module(snippet: str) -> None:
    names_of(snippet)


def snippet_with(text: str) -> dict[str, Any]:
    (found,) = [snippet for snippet in SNIPPETS if text in snippet]
    return names_of(found)


def request(method: str = "post", **given: Any) -> HttpRequest:
    made = getattr(RequestFactory(), method)("/", **given)
    made.user = SimpleNamespace(is_authenticated=True, pk=7)
    return made


def test_the_views_answer_as_the_page_says() -> None:
    views = snippet_with("def report")
    classes = snippet_with("class Totals")
    with testing.fake({"totals": lambda payload, params: params, "report": lambda payload, params: params}):
        asked = {"data": "{}", "content_type": "application/json"}
        assert views["totals"](request(**asked)).content == b'{"tenant":7}'
        assert views["report"](request("get"), year=1999).status_code == 404
        assert views["report"](request("get"), year=2001).content == b'{"year":2001}'
        for name in ("Totals", "Short"):
            assert classes[name].as_view()(request(**asked)).content == b"{}"


def test_the_signals_take_what_is_sent() -> None:
    receivers = snippet_with("def count(")
    signals.request_failed.disconnect(receivers["count"])
    signals.fell_back.disconnect(receivers["count_fallbacks"])
    receivers["count"](None, request=None, error=None, status=503, signal=None)


def test_the_tests_for_projects_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    tests = snippet_with("def test_totals_without_a_worker")
    site = SimpleNamespace(post=lambda url, *args, **given: Client().post("/totals/", *args, **given))
    monkeypatch.setattr("django.conf.settings.ROOT_URLCONF", __name__)
    tests["test_totals_without_a_worker"](site)


def test_the_table_of_settings_is_complete() -> None:
    listed = re.findall(r"^\| `([A-Z_]+)` \| ([^|]*) \|", PAGE, re.MULTILINE)
    assert [name for name, _ in listed] == list(settings.Settings._fields)
    for name, default in listed:
        value = getattr(settings.check({}), name)
        value = dict(value) if name == "TABLES" else value
        told = 64 * 2**20 if default == "64 MiB" else ast.literal_eval(default.strip("`"))
        assert told == value, name


def test_the_tables_are_settings_that_hold() -> None:
    assert list(settings.check(snippet_with('"TABLES"')["MOLT"]).TABLES) == ["orders", "products"]


def test_every_command_is_listed() -> None:
    ours = {name for name, app in get_commands().items() if app == "molt_accel.django"}
    assert ours == set(re.findall(r"manage\.py (molt_\w+)", PAGE))


def _patterns() -> list[Any]:
    from django.urls import path

    from molt_accel.django import molt_offload

    def totals(request: HttpRequest) -> Any:
        raise AssertionError("offloaded views do not run")

    return [path("totals/", molt_offload(entry="totals")(totals))]


urlpatterns = _patterns()
