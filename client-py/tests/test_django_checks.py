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
from django.core.management import call_command
from django.core.management.base import CommandError
from django.test import Client, override_settings

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


@pytest.mark.parametrize(
    ("given", "warns"),
    [
        ({}, False),
        ({"ARENA": "1GiB"}, True),
        ({"ARENA": 2**30}, True),
        ({"ARENA": "150MB"}, False),
        ({"ARENA": "auto"}, False),
        ({"WORKER_ARGS": ["--arena", "64MiB"]}, False),
        ({"WORKER_ARGS": ["--threads", "2", "--arena=1GiB"]}, True),
        ({"WORKER_ARGS": ["--arena"]}, False),
    ],
)
def test_the_room_is_held_against_the_arena_of_the_settings(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, Any], warns: bool
) -> None:
    monkeypatch.setattr(os, "statvfs", lambda path: SimpleNamespace(f_bavail=200 * 2**20 // 4096, f_frsize=4096))
    messages = found(SHM="/molt-tests-nobody", **given)
    assert ("molt.W003" in messages) is warns
    if warns:
        assert (
            "209,715,200 bytes free" in messages["molt.W003"].msg
            and "1,073,741,824 or more" in messages["molt.W003"].msg
        )


def test_a_worker_of_another_version_is_a_warning_with_what_helps(client: molt_accel.SpawnedClient) -> None:
    """The layout's version is the number behind the magic one: spec/layout.md."""
    other = Path("/dev/shm", f"molt-tests-other-{os.getpid()}")
    other.write_bytes(Path("/dev/shm", client.shm.lstrip("/")).read_bytes())
    other.chmod(0o600)
    try:
        with other.open("r+b") as segment:
            segment.seek(8)
            ours = int.from_bytes(segment.read(4), "little")
            segment.seek(8)
            segment.write((ours + 1).to_bytes(4, "little"))
        messages = found(SHM=f"/{other.name}")
        assert set(messages) == {"molt.W001"} and not messages["molt.W001"].is_serious()
        assert f"has layout version {ours + 1}, this program has {ours}" in messages["molt.W001"].msg
        assert messages["molt.W001"].hint == "install the same version of molt_worker and molt_accel"
        with override_settings(MOLT={"SHM": f"/{other.name}"}):
            response = Client().post("/compute/", {"values": [1]}, content_type="application/json")
            assert (response.status_code, response.json()) == (503, {"error": "The service is unavailable."})
            with pytest.raises(CommandError, match="install the same version"):
                call_command("molt_status")
    finally:
        other.unlink()


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


def test_while_a_new_version_is_rolled_out_the_old_worker_is_a_warning(
    client: molt_accel.SpawnedClient, tmp_path: Path
) -> None:
    manifest = tmp_path / "molt_exports.json"
    manifest.write_text('{"abi_version": 1, "exports": [{"name": "totals", "kind": "native"}]}')
    decorator.views["totals"] = {"shop.views.report"}
    messages = found(SHM=client.shm, EXPORTS=manifest)
    assert set(messages) == {"molt.W004", "molt.W005"} and not messages["molt.W005"].is_serious()
    assert (
        "'totals') on shop.views.report" in messages["molt.W005"].msg and "not have it yet" in messages["molt.W005"].msg
    )
    decorator.views["total"] = {"shop.views.report"}
    messages = found(SHM=client.shm, EXPORTS=manifest)
    assert (
        set(messages) == {"molt.W004", "molt.W005", "molt.E002"}
        and messages["molt.E002"].hint == "did you mean 'totals'?"
    )


@pytest.mark.parametrize(("text", "says"), [(None, "No such file"), ("{", "no manifest"), ("[]", "no manifest")])
def test_a_manifest_that_is_none_is_an_error(tmp_path: Path, text: str | None, says: str) -> None:
    manifest = tmp_path / "exports.json"
    if text is not None:
        manifest.write_text(text)
    messages = found(SHM="/molt-tests-nobody", EXPORTS=str(manifest))
    assert says in messages["molt.E003"].msg and str(manifest) in messages["molt.E003"].msg


def test_a_path_of_the_admission_that_no_url_has_is_a_warning(client: molt_accel.SpawnedClient) -> None:
    def named(*paths: str) -> dict[str, Any]:
        return found(SHM=client.shm, ADMISSION={"paths": paths})

    assert named("/", "/compute/", "/comp", "/arguments/7/") == {}, "URLs with arguments may be any"
    assert "did you mean '/compute/'?" in named("/compute/", "/conpute/")["molt.W006"].hint
    assert "no URL begins with it" in named("/compute/more/")["molt.W006"].msg
