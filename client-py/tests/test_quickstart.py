"""docs/quickstart.md, followed to the letter in an empty folder: every file it shows, every command, every answer."""

from __future__ import annotations

import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from molt_accel._find_worker import find_worker

PAGE = Path(__file__).resolve().parents[2] / "docs" / "quickstart.md"
STAYS = ("python manage.py molt_worker", "python manage.py runserver")
"""Commands that run until they are stopped: the page gives each a terminal of its own."""
BLOCK = re.compile(r"(?P<before>[^\n]*)\n\n```(?P<kind>\w+)\n(?P<text>.*?)```", re.DOTALL)
FILE = re.compile(r"`(?P<path>[\w/.]+)`:$")


class Reader:
    """Somebody who does what a page says."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.running: list[subprocess.Popen[bytes]] = []
        self.done: list[str] = []
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.name = f"quickstart-{os.getpid()}-{secrets.token_hex(4)}"
        path = os.pathsep.join([str(Path(sys.executable).parent), str(find_worker().parent), os.environ["PATH"]])
        self.environment = {**os.environ, "PATH": path}
        self.environment.pop("DJANGO_SETTINGS_MODULE", None)

    def follow(self, page: str) -> None:
        """Writes its files and runs its commands, in order."""
        for block in BLOCK.finditer(page):
            text = block["text"].replace('"/shop"', f'"/{self.name}"')
            file = FILE.search(block["before"])
            if block["kind"] == "console":
                self._type(text)
            else:
                assert file is not None, f"a block that is neither typed nor a file:\n{text}"
                mode = "a" if block["before"].startswith("At the end of") else "w"
                with (self.folder / file["path"]).open(mode) as written:
                    written.write(text)

    def _type(self, text: str) -> None:
        for part in text.split("$ ")[1:]:
            command, _, expected = part.partition("\n")
            self.done.append(command)
            command = command.replace("localhost:8000", f"127.0.0.1:{self.port}")
            if command.startswith("cd "):
                self.folder = self.folder / command[3:]
            elif command in STAYS:
                self._start(command)
            else:
                shown = self._run(command)
                assert expected.strip() in shown, f"{command}\nshows {shown}"

    def _start(self, command: str) -> None:
        if command.endswith("runserver"):
            command += f" --noreload 127.0.0.1:{self.port}"
        log = (self.folder / "terminal.log").open("ab")
        self.running.append(
            subprocess.Popen(
                command.split(), cwd=self.folder, env=self.environment, stdout=log, stderr=log, start_new_session=True
            )
        )
        ready = f"127.0.0.1:{self.port}" if "runserver" in command else "molt_status"
        end = time.monotonic() + 60
        while not self._answers(ready):
            assert time.monotonic() < end and self.running[-1].poll() is None, self._log()
            time.sleep(0.05)

    def _answers(self, what: str) -> bool:
        if what == "molt_status":
            return self._completed("python manage.py molt_status").returncode == 0
        host, _, port = what.partition(":")
        with socket.socket() as probe:
            return probe.connect_ex((host, int(port))) == 0

    def _run(self, command: str) -> str:
        done = self._completed(command)
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}\n{self._log()}"
        return done.stdout + done.stderr

    def _completed(self, command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, shell=True, cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=60
        )

    def _log(self) -> str:
        log = self.folder / "terminal.log"
        return log.read_text() if log.exists() else ""

    def stop(self) -> None:
        """Ctrl-C in every terminal."""
        for process in reversed(self.running):
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGINT)
        for process in self.running:
            process.wait(30)


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    someone = Reader(tmp_path)
    try:
        yield someone
    finally:
        someone.stop()
    assert not Path("/dev/shm", someone.name).exists(), "Ctrl-C leaves nothing"


def test_who_follows_the_page_gets_the_answer_it_shows(reader: Reader) -> None:
    reader.follow(PAGE.read_text())
    assert [command.split()[0] for command in reader.done].count("curl") == 1, "the page was read"
    status = reader._run("python manage.py molt_status")
    assert re.search(r"totals +1 ", status), status


def test_without_the_worker_the_views_own_code_answers_and_its_return_needs_no_restart(reader: Reader) -> None:
    reader.follow(PAGE.read_text())
    worker, ask = reader.running[0], next(command for command in reader.done if command.startswith("curl"))
    ask = ask.replace("localhost:8000", f"127.0.0.1:{reader.port}")
    os.killpg(worker.pid, signal.SIGINT)
    worker.wait(30)
    assert "come back later" in reader._run(ask)
    reader._start("python manage.py molt_worker")
    assert '"total":20.0' in reader._run(ask)
