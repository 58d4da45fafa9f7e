"""System checks: what is wrong between settings, views and worker, found before a request does."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from django.core.checks import run_checks
from django.test import override_settings

import molt_accel
from conftest import until
from molt_accel.django import decorator


@pytest.fixture(autouse=True)
def _only_the_views_of_the_site(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    import site_urls

    names = {getattr(site_urls, name).molt_entry: {f"site_urls.{name}"} for name in ("compute", "echo")}
    monkeypatch.setattr(decorator, "views", names)
    yield


def found(**molt: Any) -> dict[str, Any]:
    with override_settings(MOLT=molt):
        return {message.id: message for message in run_checks(tags=["molt"])}


def test_all_is_well_with_a_worker(client: molt_accel.SpawnedClient) -> None:
    assert found(SHM=client.shm) == {}
    until(lambda: len(client.stats()["sessions"]) == 1, "the check leaves no session behind")


def test_no_worker_is_a_warning_with_the_command_that_starts_one() -> None:
    messages = found(SHM="/molt-tests-nobody")
    assert set(messages) == {"molt.W001"}
    assert "/molt-tests-nobody" in messages["molt.W001"].msg and "manage.py molt_worker" in messages["molt.W001"].hint
    assert not messages["molt.W001"].is_serious()


def test_no_executable_is_a_warning(monkeypatch: pytest.MonkeyPatch, client: molt_accel.SpawnedClient) -> None:
    monkeypatch.setenv("MOLT_WORKER", "/nowhere/molt_worker")
    messages = found(SHM="/molt-tests-nobody")
    assert "/nowhere/molt_worker" in messages["molt.W002"].msg and "make build" in messages["molt.W002"].hint
    assert found(SHM=client.shm) == {}, "who has a worker needs no executable"


def test_a_full_shm_is_a_warning_with_the_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "statvfs", lambda path: SimpleNamespace(f_bavail=1000, f_frsize=4096))
    messages = found(SHM="/molt-tests-nobody")
    assert "4,096,000 bytes free" in messages["molt.W003"].msg and "--shm-size" in messages["molt.W003"].hint
    assert "molt.W003" not in found(SOCKET="/tmp/molt-tests-nobody.sock"), "a worker without a name needs no /dev/shm"


def test_a_typo_in_the_settings_is_an_error_with_the_nearest_key() -> None:
    messages = found(TIMOUT=3)
    assert set(messages) == {"molt.E001"} and messages["molt.E001"].is_serious()
    assert "'TIMOUT' " not in messages["molt.E001"].msg and "TIMOUT" in messages["molt.E001"].msg
    assert messages["molt.E001"].hint == "did you mean 'TIMEOUT'?"


TYPO = """
from django.conf import settings
settings.configure(DEBUG=True, INSTALLED_APPS=["molt_accel.django"], MOLT={"TIMOUT": 3})
"""


def started(script: str) -> subprocess.CompletedProcess[str]:
    """A process of its own: this one is long set up."""
    return subprocess.run([sys.executable, "-c", TYPO + script], capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("kind", ["wsgi", "asgi"])
def test_a_typo_stops_a_server(kind: str) -> None:
    ended = started(f"from django.core.{kind} import get_{kind}_application\nget_{kind}_application()\n")
    assert ended.returncode == 1 and ended.stderr.strip().endswith(
        "'TIMOUT'] is unknown. hint: did you mean 'TIMEOUT'?"
    )


def test_a_typo_is_left_to_the_checks_where_manage_py_runs_them() -> None:
    script = "from django.core.management import execute_from_command_line as run\nrun(['manage.py', {}])\n"
    checked = started(script.format("'check'"))
    assert checked.returncode == 1 and "(molt.E001) MOLT['TIMOUT'] is unknown" in checked.stderr
    assert "Traceback" not in checked.stderr
    served = started(script.format("'runserver', '--noreload', '127.0.0.1:0'"))
    assert served.returncode == 1 and "(molt.E001) MOLT['TIMOUT'] is unknown" in served.stderr


def test_an_unknown_entry_is_an_error_with_the_nearest_name(client: molt_accel.SpawnedClient) -> None:
    decorator.views["computes"] = {"shop.views.report"}
    messages = found(SHM=client.shm)
    assert set(messages) == {"molt.E002"}
    assert "@molt_offload(entry='computes') on shop.views.report" in messages["molt.E002"].msg
    assert messages["molt.E002"].hint == "did you mean 'compute'?"


def test_without_a_worker_the_manifest_knows_the_entries(tmp_path: Path) -> None:
    manifest = tmp_path / "molt_exports.json"
    manifest.write_text('{"abi_version": 1, "exports": [{"name": "totals", "kind": "native"}]}')
    decorator.views["total"] = {"shop.views.report"}
    messages = found(SHM="/molt-tests-nobody", EXPORTS=manifest)
    assert messages["molt.E002"].hint == "did you mean 'totals'?"
    del decorator.views["total"]
    assert set(found(SHM="/molt-tests-nobody", EXPORTS=manifest)) == {"molt.W001"}


@pytest.mark.parametrize(("text", "says"), [(None, "No such file"), ("{", "no manifest"), ("[]", "no manifest")])
def test_a_manifest_that_is_none_is_an_error(tmp_path: Path, text: str | None, says: str) -> None:
    manifest = tmp_path / "exports.json"
    if text is not None:
        manifest.write_text(text)
    messages = found(SHM="/molt-tests-nobody", EXPORTS=str(manifest))
    assert says in messages["molt.E003"].msg and str(manifest) in messages["molt.E003"].msg
