"""Web servers, each as its own documentation says, before a real worker: started on a free port, asked, and stopped."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from conftest import until

TESTS = Path(__file__).parent
CLIENTS = 8
NUMBERS = {"values": [1, 2, 3], "scale": 2, "offset": 0}


class Server(NamedTuple):
    """A server: its command, with {port}, which kind of view it is asked for, and what its environment has besides."""

    command: str
    kind: str
    environment: Mapping[str, str] = MappingProxyType({})


class Site:
    """A running server."""

    def __init__(self, server: Server, shm: str, log: Path) -> None:
        self.kind = server.kind
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.log = log
        command = server.command.format(python=sys.executable, port=self.port).split()
        with log.open("wb") as written:
            self.process = subprocess.Popen(
                command,
                cwd=TESTS,
                env={**os.environ, "MOLT_TEST_SHM": shm, "PYTHONPATH": str(TESTS), **server.environment},
                stdout=written,
                stderr=written,
                start_new_session=True,
            )
        until(self._is_up, f"{command} serves", 60)

    def _is_up(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def url(self, name: str) -> str:
        return f"/{'a' if self.kind == 'asgi' else ''}{name}/"

    def ask(self, times: int) -> list[int]:
        """Statuses of that many requests over one kept connection; a 200 must be the right answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        statuses = []
        for i in range(times):
            body = json.dumps({**NUMBERS, "scale": i})
            connection.request("POST", self.url("compute"), body, {"content-type": "application/json"})
            answer = connection.getresponse()
            data = answer.read()
            statuses.append(answer.status)
            if answer.status == 200:
                assert json.loads(data) == {"count": 3, "sum": 6, "scaled": [i, 2 * i, 3 * i]}
        connection.close()
        return statuses

    def ask_all(self, times: int) -> set[int]:
        with ThreadPoolExecutor(CLIENTS) as pool:
            return {status for part in pool.map(self.ask, [times // CLIENTS] * CLIENTS) for status in part}

    def stop(self) -> None:
        """SIGTERM, as a service manager sends it; nothing of it may be left."""
        self.process.terminate()
        self.process.wait(30)
        until(lambda: self._processes() == [], "no process of it is left")

    def _processes(self) -> list[int]:
        return [int(pid) for pid in os.listdir("/proc") if pid.isdigit() and _group(pid) == self.process.pid]

    def kill(self) -> None:
        """Whatever is left of it, for the end of a test that failed."""
        for pid in self._processes():
            os.kill(pid, signal.SIGKILL)
        self.process.wait()


def _group(pid: str) -> int | None:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else int(fields[2])
