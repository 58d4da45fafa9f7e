"""Version skew between web and worker: found by the manifest's hash, said by the check, the status and the log."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.checks import run_checks
from django.core.management import call_command
from django.test import Client, override_settings

import molt_accel
from conftest import until
from molt_accel.django import skew

OF_WORKER = {"abi_version": 1, "exports": [{"name": "compute", "kind": "native"}]}
OF_WEB = {"abi_version": 1, "exports": [{"name": "compute", "kind": "native", "timeout_ms": 250}]}
NUMBERS = {"values": [1, 2]}


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """What worker and web begin with."""
    path = tmp_path / "exports.json"
    path.write_text(json.dumps(OF_WORKER))
    return path


def deploy(manifest: Path, content: object) -> None:
    """In one step: who looks meanwhile finds the old one or the new one."""
    fresh = manifest.with_suffix(".new")
    fresh.write_text(json.dumps(content))
    fresh.replace(manifest)


@pytest.fixture
def deployed(manifest: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[molt_accel.SpawnedClient]:
    """A worker that serves the manifest that the settings name."""
    monkeypatch.setattr(skew, "_look_at", 0.0)
    monkeypatch.setattr(skew, "_known", None)
    spawned = molt_accel.spawn(manifest, arena="16MiB", threads=1)
    with spawned as worker, override_settings(MOLT={"SHM": worker.shm, "EXPORTS": str(manifest)}):
        yield worker
        if skew._looking is not None:
            skew._looking.join()


def warnings() -> dict[str, Any]:
    return {message.id: message for message in run_checks(tags=["molt"]) if message.id != "molt.E002"}


def status() -> str:
    out = StringIO()
    call_command("molt_status", stdout=out)
    return out.getvalue()


def test_the_hash_is_the_published_one() -> None:
    assert (skew.hash_of(b""), skew.hash_of(b"foobar")) == ("cbf29ce484222325", "85944171f73967e8")


def test_one_deployment_is_no_skew(deployed: molt_accel.SpawnedClient, manifest: Path) -> None:
    assert deployed.call("health")["manifest"] == skew.hash_of(manifest.read_bytes())
    assert warnings() == {} and "manifest  that of the settings" in status()


def test_a_new_manifest_on_the_web_side_alone_is_a_warning(deployed: molt_accel.SpawnedClient, manifest: Path) -> None:
    manifest.write_text(json.dumps(OF_WEB))
    (warning,) = warnings().values()
    assert warning.id == "molt.W004" and not warning.is_serious() and "deploy web and worker together" in warning.hint
    for text in (warning.msg, status()):
        assert skew.hash_of(manifest.read_bytes()) in text and deployed.call("health")["manifest"] in text
    assert "manifest  DIFFERS" in status()


def test_who_has_no_manifest_is_told_nothing(deployed: molt_accel.SpawnedClient) -> None:
    with override_settings(MOLT={"SHM": deployed.shm}):
        assert warnings() == {} and "manifest" not in status()
    with override_settings(MOLT={"SHM": deployed.shm, "EXPORTS": "/nowhere.json"}):
        assert "molt.W004" not in warnings() and "manifest" not in status()


def test_a_worker_without_a_manifest_serves_another_one(
    deployed: molt_accel.SpawnedClient, manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.chdir(empty)  # else a worker takes the manifest that lies where it is started
    with molt_accel.spawn(arena="16MiB", threads=1) as bare:
        assert bare.call("health")["manifest"] is None
        with override_settings(MOLT={"SHM": bare.shm, "EXPORTS": str(manifest)}):
            assert "serves none" in warnings()["molt.W004"].msg


def test_a_process_logs_it_once_and_its_answers_say_so(
    deployed: molt_accel.SpawnedClient, manifest: Path, caplog: pytest.LogCaptureFixture, monkeypatch: Any
) -> None:
    def ask() -> str:
        monkeypatch.setattr(skew, "_look_at", 0.0)  # a minute is over
        return Client().post("/compute/", NUMBERS, content_type="application/json").headers["Server-Timing"]

    def said(words: str) -> list[str]:
        return [record.getMessage() for record in caplog.records if words in record.getMessage()]

    with override_settings(MOLT={"SHM": deployed.shm, "EXPORTS": str(manifest), "SERVER_TIMING": True}):
        with caplog.at_level(logging.INFO, "molt_accel.request"):
            assert "molt-skew" not in ask()
            deploy(manifest, OF_WEB)
            until(lambda: 'molt-skew;desc="other manifest"' in ask(), "an answer says so")
            looks = [ask() for _ in range(5)]
            assert all("molt-skew" in look for look in looks) and len(said("serves another manifest")) == 1
            deploy(manifest, OF_WORKER)
            until(lambda: "molt-skew" not in ask(), "it is over")
            assert len(said("serves another manifest")) == 1 and len(said("of the settings again")) == 1
