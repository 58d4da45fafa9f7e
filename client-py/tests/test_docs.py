"""docs/: snippets run, and what is listed is what there is. The quickstart has test_quickstart.py."""

from __future__ import annotations

import ast
import configparser
import json
import re
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
import yaml
from django.core.management import get_commands
from django.http import HttpRequest
from django.test import Client, RequestFactory, override_settings
from prometheus_client import REGISTRY

from molt_accel import errors, testing
from molt_accel._find_worker import find_worker
from molt_accel.django import settings, signals

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE = (DOCS / "django.md").read_text()
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
    with override_settings(MOLT={"ADMISSION": {"paths": ["/totals/"]}}):
        names_of(snippet)


def test_the_admissions_settings_are_such() -> None:
    checked = settings.check(snippet_with('"ADMISSION"')["MOLT"]).ADMISSION
    assert checked == settings.Admission(("/totals/",), 8, 0.15), "the page says the defaults"


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
    signals.breaker_changed.disconnect(receivers["page"])
    receivers["count"](None, request=None, error=None, status=503, signal=None)
    receivers["page"]("/molt0", client=None, state="open", reason="nobody", signal=None)


def test_the_tests_for_projects_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    tests = snippet_with("def test_totals_without_a_worker")
    site = SimpleNamespace(post=lambda url, *args, **given: Client().post("/totals/", *args, **given))
    monkeypatch.setattr("django.conf.settings.ROOT_URLCONF", __name__)
    tests["test_totals_without_a_worker"](site)


def test_what_the_page_does_with_a_worker_is_done(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (sql,) = re.findall(r'"sql": "([^"]*)"', (DOCS / "quickstart.md").read_text())
    entry = {"name": "totals", "kind": "sql", "input": "orders", "sql": sql, "params": {"min": "float64"}}
    manifest = tmp_path / "molt_exports.json"
    manifest.write_text(json.dumps({"abi_version": 1, "tables": {"rates": {"put": True}}, "exports": [entry]}))
    monkeypatch.setattr("django.conf.settings.ROOT_URLCONF", __name__)
    with testing.worker(exports=manifest, arena="32MiB") as molt:
        molt.put("rates", pa.table({"currency": ["EUR", "JPY"], "rate": [1.1, 0.006]}))
        asked = request("get")
        asked.molt = molt
        assert snippet_with("def rates")["rates"](asked).content == b'[{"currency": "EUR", "rate": 1.1}]'
        tests = snippet_with("def test_totals_for_real")
        site = SimpleNamespace(post=lambda url, *args, **given: Client().post("/totals/", *args, **given))
        tests["test_totals_for_real"](site, molt)
        monkeypatch.setattr("random.random", lambda: 0.0)  # it is the one request in a hundred
        own = snippet_with("shadow=0.01")["totals"](request(data='{"orders": []}', content_type="application/json"))
        assert own.content == b'{"total": 0}' and caplog.records, "the page's view and the entry differ"


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


def test_the_metrics_are_those_there_are(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert snippet_with("metrics.view")["urlpatterns"]
    ours = {family.name: family.type for family in REGISTRY.collect() if family.name.startswith("molt_client_")}
    assert set(re.findall(r"^\| `(molt_client_\w+)` \|", PAGE, re.MULTILINE)) == {
        f"{name}_total" if kind == "counter" else name for name, kind in ours.items()
    }
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    (tmp_path / "gauge_livesum_7.db").touch()
    snippet_with("mark_process_dead")["child_exit"](None, SimpleNamespace(pid=7))
    assert not list(tmp_path.iterdir())


def test_every_command_is_listed() -> None:
    ours = {name for name, app in get_commands().items() if app == "molt_accel.django"}
    assert ours == set(re.findall(r"manage\.py (molt_\w+)", PAGE))


def fences(page: str, kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)


def flags_of(program: str) -> set[str]:
    path = find_worker().parent / program
    text = subprocess.run([path, "--help"], capture_output=True, text=True, check=True, timeout=60).stdout
    return set(re.findall(r"--[a-z-]+", text)) | set(re.findall(r"^  ([a-z]+) ", text, re.MULTILINE))


def worker_flags(command: str | list[str]) -> set[str]:
    words = command.split() if isinstance(command, str) else command
    if words[1:4] == ["manage.py", "molt_worker", "--"]:
        words = words[3:]
    elif not words[0].endswith("molt_worker"):
        return set()
    return {word for word in words[1:] if word.startswith("--")}


def test_the_units_of_systemd_start_what_there_is() -> None:
    flags, started = flags_of("molt_worker"), 0
    for unit in fences("deployment.md", "ini"):
        is_drop_in = "\nExecStart=\n" in unit  # which takes the unit's own line away before it gives another
        parsed = configparser.ConfigParser(interpolation=None, strict=not is_drop_in)
        parsed.optionxform = str  # type: ignore[assignment,method-assign]
        parsed.read_string(unit)
        assert set(parsed.sections()) == {"Unit", "Service"} | (set() if is_drop_in else {"Install"})
        started += len(worker_flags(parsed["Service"]["ExecStart"]))
        assert worker_flags(parsed["Service"]["ExecStart"]) <= flags
    assert started, "a unit starts the worker"


def test_compose_and_kubernetes_start_what_there_is() -> None:
    compose, pod = (yaml.safe_load(text) for text in fences("deployment.md", "yaml"))
    flags = flags_of("molt_worker")
    assert "--memfd" in worker_flags(compose["services"]["molt"]["command"]) <= flags
    (worker,) = (container for container in pod["spec"]["containers"] if container["name"] == "molt")
    assert "--memfd" in worker_flags(worker["command"]) <= flags
    probe = worker["livenessProbe"]["exec"]["command"]
    assert {word for word in probe[1:] if not word.startswith("/")} <= flags_of("molt-shm-stat")


def test_the_table_of_outcomes_is_complete() -> None:
    page = (DOCS / "operating.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)`[^|]*\| (\d+)", page, re.MULTILINE))
    known = {kind.outcome.removeprefix("worker_"): str(kind.default_status) for kind in errors.BY_NUMBER.values()}
    assert rows == known


def test_what_operators_type_exists() -> None:
    flags = flags_of("molt-shm-stat")
    for command in re.findall(r"^\| `molt-shm-stat([^`]*)`", (DOCS / "operating.md").read_text(), re.MULTILINE):
        assert {word for word in command.split() if not word.startswith("/")} <= flags, command


@pytest.mark.parametrize("page", sorted(path.name for path in DOCS.glob("*.md")))
def test_links_between_pages_lead_somewhere(page: str) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[\w-]+)?\)", (DOCS / page).read_text()):
        assert (DOCS / target).exists(), target


def _patterns() -> list[Any]:
    from django.urls import path

    from molt_accel.django import molt_offload

    def totals(request: HttpRequest) -> Any:
        raise AssertionError("offloaded views do not run")

    return [path("totals/", molt_offload(entry="totals")(totals))]


urlpatterns = _patterns()
