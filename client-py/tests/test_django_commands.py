"""manage.py commands before a real worker: what they print, what they change, how they fail."""

from __future__ import annotations

import json
import os
import re
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.test import override_settings

import molt_accel
from conftest import until
from molt_accel.django import command, manifest, switch


@pytest.fixture(autouse=True)
def settings(client: molt_accel.SpawnedClient) -> Iterator[None]:
    with override_settings(MOLT={"SHM": client.shm, "SOCKET": client.socket}):
        yield
        switch.turn_on()


def output(*arguments: str, **given: Any) -> str:
    out = StringIO()
    call_command(*arguments, stdout=out, **given)
    return out.getvalue()


def test_status_shows_the_worker_and_what_was_called(client: molt_accel.SpawnedClient) -> None:
    for _ in range(3):
        client.call("echo", 1)
    text = output("molt_status")
    assert f"process {client.worker.pid}" in text and "offload   on" in text
    assert re.search(r"echo +\d+ +\d+ us", text), text
    assert "molt.query" not in text, "what nobody called is not listed"
    assert json.loads(output("molt_status", "--json"))["worker"]["pid"] == client.worker.pid


def test_status_can_be_watched(client: molt_accel.SpawnedClient) -> None:
    script = (
        "from django.conf import settings\n"
        f"molt = {{'SHM': {client.shm!r}, 'SOCKET': {client.socket!r}}}\n"
        "settings.configure(INSTALLED_APPS=['molt_accel.django'], MOLT=molt)\n"
        "from django.core.management import execute_from_command_line\n"
        "execute_from_command_line(['manage.py', 'molt_status', '--watch'])\n"
    )
    watch = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    try:
        assert watch.stdout is not None
        assert client.shm is not None and client.shm in watch.stdout.readline()
        assert Path(f"/proc/{watch.pid}/comm").read_text() == "molt-shm-stat\n", "signals and the terminal are its own"
    finally:
        watch.kill()
        watch.communicate()


def test_status_names_what_failed(client: molt_accel.SpawnedClient) -> None:
    client.ping()
    with pytest.raises(molt_accel.MoltUnknownEntry):
        client.call("nothing-of-that-name", 1)
    assert re.search(r"outcomes +ok \d.*unknown_entry \d", output("molt_status"))


def test_without_a_worker_a_command_fails_in_one_line() -> None:
    with override_settings(MOLT={"SHM": "/molt-tests-nobody"}):
        for name in ("molt_status", "molt_tables"):
            with pytest.raises(CommandError, match="there is no segment /molt-tests-nobody"):
                output(name)


def test_tables_are_loaded_listed_and_dropped(client: molt_accel.SpawnedClient, tmp_path: Path) -> None:
    file = tmp_path / "rates.csv"
    file.write_text("currency,rate\nEUR,1.0\nUSD,1.1\n")
    assert re.search(r"rates +\d+ +2 .*rates.csv", output("molt_tables", "load", "rates", str(file)))
    assert client.table("rates").num_rows == 2
    assert "currency: " in output("molt_tables", verbosity=2)
    listed = {table["name"]: table["rows"] for table in json.loads(output("molt_tables", "--json"))}
    assert listed["rates"] == 2
    with pytest.raises(CommandError, match="no-such-file"):
        output("molt_tables", "load", "rates", str(tmp_path / "no-such-file.csv"))
    output("molt_tables", "drop", "rates")
    with pytest.raises(CommandError, match="no table is called 'rates'"):
        output("molt_tables", "drop", "rates")


def test_the_switch_is_turned_and_shown() -> None:
    assert output("molt_switch") == "offloading is on\n"
    assert "offloading is off" in output("molt_switch", "off") and "offloading is off" in output("molt_switch", "off")
    assert "OFF" in output("molt_status")
    assert output("molt_switch", "on") == "offloading is on\n"
    off = override_settings(MOLT={"SHM": "/molt-tests-nobody", "OFFLOAD": False})
    with off, pytest.raises(CommandError, match="stays off"):
        output("molt_switch", "on")


def test_a_user_whom_nobody_would_heed_is_refused(client: molt_accel.SpawnedClient, monkeypatch: Any) -> None:
    web = os.geteuid()
    monkeypatch.setattr("os.geteuid", lambda: 4711)
    with pytest.raises(CommandError, match=f"the worker is user {web}'s.*hint: do it as user {web} or as root"):
        output("molt_switch", "off")
    assert not switch.path().exists()
    with override_settings(MOLT={"SHM": f"/molt-tests-nobody-{os.getpid()}"}):
        monkeypatch.setattr(
            "molt_accel.django.switch.reason", lambda: "the file is there"
        )  # it is this process's user's
        assert "no worker says whose processes offload; those of user 4711 heed this" in output("molt_switch", "off")
        switch.turn_on()
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert "offloading is off" in output("molt_switch", "off")


def test_the_workers_command_line_says_what_the_settings_say() -> None:
    with override_settings(MOLT={"SHM": "/shop", "EXPORTS": Path("/x.json"), "ARENA": 2**20, "WORKER_ARGS": ["-q"]}):
        assert command.command(["--threads", "2"])[1:] == [
            "--shm", "/shop", "--exports", "/x.json", "--arena", "1048576", "-q", "--threads", "2"
        ]  # fmt: skip
    with override_settings(MOLT={"SOCKET": "/run/shop.sock"}):
        assert command.command()[1:] == ["--memfd", "--socket", "/run/shop.sock"]


def test_without_the_executable_the_command_lists_where_it_looked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOLT_WORKER", "/nowhere/molt_worker")
    with pytest.raises(CommandError, match="/nowhere/molt_worker"):
        output("molt_worker")


MANIFEST = {"abi_version": 1, "exports": [{"name": "one", "kind": "sql", "input": "t", "sql": "select 1 as x from t"}]}


@pytest.fixture
def reloading(tmp_path: Path) -> Iterator[tuple[str, Path, subprocess.Popen[bytes], Path]]:
    """`manage.py molt_worker --reload` of a project of its own: its segment, manifest, process and log."""
    name = f"/molt-reload-{os.getpid()}-{secrets.token_hex(4)}"
    manifest, log = tmp_path / "molt_exports.json", tmp_path / "terminal.log"
    manifest.write_text(json.dumps(MANIFEST))
    molt = {"SHM": name, "EXPORTS": str(manifest), "ARENA": "16MiB"}
    script = (
        "from django.conf import settings\n"
        f"settings.configure(INSTALLED_APPS=['molt_accel.django'], MOLT={molt!r})\n"
        "from django.core.management import execute_from_command_line\n"
        "execute_from_command_line(['manage.py', 'molt_worker', '--reload', '--', '--threads', '1'])\n"
    )
    with log.open("wb") as written:
        process = subprocess.Popen([sys.executable, "-c", script], stdout=written, stderr=written, cwd=tmp_path)
    try:
        yield name, manifest, process, log
    finally:
        process.kill()
        process.wait()


def test_reload_replaces_the_worker_in_place_and_ends_with_its_terminal(reloading: Any) -> None:
    name, manifest, process, log = reloading
    client = molt_accel.attach(name, wait=60)

    def answers() -> bool:
        try:
            return client.call("two", [{"a": 1}], codec="json") == [{"x": 1}]
        except (molt_accel.MoltUnknownEntry, molt_accel.MoltUnavailable):
            return False

    assert client.call("one", [{"a": 1}], codec="json") == [{"x": 1}] and not answers()
    manifest.write_text(json.dumps(MANIFEST).replace('"one"', '"two"'))
    until(answers, "the new manifest serves", 60)

    manifest.write_text("{")
    until(lambda: b"the old one goes on" in log.read_bytes(), "a manifest that is none is refused", 60)
    assert answers()

    process.send_signal(signal.SIGTERM)
    process.wait(60)
    until(lambda: not Path("/dev/shm", name[1:]).exists(), "it leaves nothing")


def test_runserver_begins_anew_with_a_new_manifest(tmp_path: Path) -> None:
    manifest, log = tmp_path / "exports.json", tmp_path / "terminal.log"
    manifest.write_text(json.dumps(MANIFEST))
    (tmp_path / "manage.py").write_text(
        "import sys\n"
        "from django.conf import settings\n"
        "from django.http import HttpResponse\n"
        "from django.urls import path\n"
        "from molt_accel.django import molt_offload\n"
        f"molt = {{'SHM': '/molt-tests-nobody', 'EXPORTS': {str(manifest)!r}}}\n"
        "settings.configure(DEBUG=True, INSTALLED_APPS=['molt_accel.django'], ROOT_URLCONF=__name__, MOLT=molt)\n"
        "@molt_offload(entry='one')\n"
        "def one(request): ...\n"
        "urlpatterns = [path('one/', one)]\n"
        "from django.core.management import execute_from_command_line\n"
        "execute_from_command_line(sys.argv)\n"
    )
    with log.open("wb") as written:
        process = subprocess.Popen(
            [sys.executable, "-u", "manage.py", "runserver", "127.0.0.1:0"],
            stdout=written,
            stderr=written,
            cwd=tmp_path,
            start_new_session=True,
        )
    try:
        until(lambda: "Starting development server" in log.read_text(), f"it serves: {log.read_text()}", 60)
        assert "molt.E002" not in log.read_text()
        manifest.write_text(json.dumps(MANIFEST).replace('"one"', '"other"'))

        def begun_anew() -> bool:
            manifest.touch()  # runserver compares files with what it saw at its first look, which may come after the change
            return "molt.E002" in log.read_text()

        until(begun_anew, "its checks have run again", 60)
        assert f"{manifest} changed, reloading." in log.read_text()
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_a_hang_up_signal_has_a_new_worker_take_over(reloading: Any) -> None:
    """As `systemctl reload` sends it."""
    name, _, process, log = reloading
    client = molt_accel.attach(name, wait=60)
    before = client.stats()["worker"]["pid"]
    process.send_signal(signal.SIGHUP)
    fresh = molt_accel.Client(name)  # a session would go on looking at the segment it has
    until(lambda: fresh.stats()["worker"]["pid"] != before, f"another worker: {log.read_text()}", 60)
    assert client.call("one", [{"a": 1}], codec="json") == [{"x": 1}]
    until(lambda: not Path("/proc", str(before)).exists(), "the old one has left")
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0, log.read_text()
    until(lambda: not Path("/dev/shm", name[1:]).exists(), "it leaves nothing")


def test_a_worker_that_is_killed_is_a_failure_of_the_command(reloading: Any) -> None:
    """A service manager that restarts on failure has to see one."""
    name, _, process, log = reloading
    molt_accel.attach(name, wait=60).close()
    os.kill(molt_accel.Client(name).stats()["worker"]["pid"], signal.SIGKILL)
    assert process.wait(60) == 128 + signal.SIGKILL
    assert "molt_worker was ended by SIGKILL" in log.read_text()
    Path("/dev/shm", name[1:]).unlink()


def test_reload_looks_at_the_manifest_and_at_what_it_names_and_at_nothing_beside_it(tmp_path: Path) -> None:
    folders = {name: tmp_path / name for name in ("shop", "lib", "data")}
    for folder in folders.values():
        folder.mkdir()
    library, table, exports = (
        folders["lib"] / "libx.so",
        folders["data"] / "a.parquet",
        folders["shop"] / "exports.json",
    )
    manifest_of = {
        "tables": {
            "regions": {"path": "regions.csv"},
            "lines": {"path": "../data", "resident": False},
            "put": {"put": True},
        },
        "exports": [
            {"name": "x", "kind": "native", "library": "../lib/libx.so"},
            {"name": "compute", "kind": "native"},
        ],
    }
    exports.write_text(json.dumps(manifest_of))
    with override_settings(MOLT={"SHM": "/molt-tests-nobody", "EXPORTS": exports}):
        watch = manifest.Watch()
        (folders["shop"] / "db.sqlite3").write_text("a write of the database")
        (folders["lib"] / "other.so").write_text("")
        assert watch.changed() == []
        for file in (library, folders["shop"] / "regions.csv", table):
            file.write_text("new")
            assert [path.resolve() for path in watch.changed()] == [file]
            assert watch.changed() == []
        os.utime(library, (1, 1))
        assert [path.resolve() for path in watch.changed()] == [library]
        exports.write_text("{")  # half written
        assert watch.changed() == [exports]
        exports.write_text(json.dumps(manifest_of))
        assert watch.changed() == [exports]
        exports.unlink()
        assert watch.changed() == [exports]
    with override_settings(MOLT={"SHM": "/molt-tests-nobody"}):
        assert manifest.path() == Path("molt_exports.json"), "the worker's own default"


def test_the_worker_ends_with_its_command_also_when_that_is_killed(reloading: Any) -> None:
    name, _, process, _ = reloading
    molt_accel.attach(name, wait=60).close()
    process.kill()
    process.wait()
    until(lambda: not Path("/dev/shm", name[1:]).exists(), "the worker ends in good order", 60)
