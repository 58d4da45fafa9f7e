"""A page as headless Chromium shows it: over its debugging pipe, without a network, with a profile of its own."""

import fcntl
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--remote-debugging-pipe", "--window-size=1360,2000",
)  # fmt: skip
GRACE = 10
ABOVE = 10
"""The pipes are moved up to here first: 3 and 4 are where Chromium wants them."""

DRAWN = """
[...document.querySelectorAll('.plotly-graph-div')].map(chart => ({
  name: chart.id.replace('chart-', ''),
  title: chart.closest('figure').querySelector('h3').textContent,
  says: chart.closest('figure').querySelector('figcaption').textContent,
  width: chart.getBoundingClientRect().width,
  traces: (chart.data || []).map(({name, x, y, xaxis}) => ({
    name: xaxis && xaxis !== 'x' ? `${name} ${xaxis}` : name, x: [...x], y: [...y],
  })),
  points: [...chart.querySelectorAll('.cartesianlayer .point')].filter(point => point.getBBox().height > 0).length,
  lines: [...chart.querySelectorAll('.cartesianlayer .js-line')].filter(line => (line.getAttribute('d') || '').length > 2).length,
}))
"""


def program() -> str:
    """Chromium; where there is none the test is skipped, with the reason."""
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"no Chromium on PATH ({', '.join(NAMES)}): `apt-get install chromium`")
    return found


class Browser:
    """A Chromium that was started, spoken to by its debugging protocol."""

    def __init__(self, write: int, read: int) -> None:
        self._out, self._in = os.fdopen(write, "wb", 0), os.fdopen(read, "rb", 0)
        self._asked = 0
        self._rest = b""
        self.events: list[dict] = []

    def ask(self, method: str, session: str | None = None, **parameters: Any) -> dict:
        """The answer to a command; events that come before it are kept."""
        self._asked += 1
        said = {
            "id": self._asked,
            "method": method,
            "params": parameters,
            **({"sessionId": session} if session else {}),
        }
        self._out.write(json.dumps(said).encode() + b"\0")
        while True:
            heard = self._hear()
            if heard.get("id") == self._asked:
                assert "error" not in heard, heard
                return heard["result"]
            self.events.append(heard)

    def wait_for(self, method: str) -> None:
        """Until an event of that name has come."""
        while not any(event.get("method") == method for event in self.events):
            self.events.append(self._hear())

    def _hear(self) -> dict:
        while b"\0" not in self._rest:
            more = self._in.read(1 << 20)
            assert more, "Chromium has closed its pipe"
            self._rest += more
        one, _, self._rest = self._rest.partition(b"\0")
        return json.loads(one)

    def close(self) -> None:
        """Lets go of the pipes, upon which Chromium ends."""
        self._out.close()
        self._in.close()


@contextmanager
def running() -> Iterator[Browser]:
    """A Chromium of its own; it ends with the block."""
    pipes = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, ABOVE) for pair in (os.pipe(), os.pipe()) for end in pair]
    their_in, our_out, our_in, their_out = pipes

    def placed() -> None:
        os.dup2(their_in, 3)
        os.dup2(their_out, 4)

    with tempfile.TemporaryDirectory(prefix="molt-chromium-", ignore_cleanup_errors=True) as profile:
        command = [program(), *FLAGS, f"--user-data-dir={profile}"]
        begun = subprocess.Popen(
            command, preexec_fn=placed, pass_fds=(3, 4), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        os.close(their_in)
        os.close(their_out)
        browser = Browser(our_out, our_in)
        try:
            yield browser
        finally:
            browser.close()
            try:
                begun.wait(GRACE)
            except subprocess.TimeoutExpired:
                begun.kill()
                begun.wait()


def shown(page: Path) -> tuple[list[dict], list[str]]:
    """The charts that a page draws, and what went wrong in its scripts."""
    with running() as browser:
        target = browser.ask("Target.createTarget", url="about:blank")["targetId"]
        session = browser.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Runtime", "Log", "Page"):
            browser.ask(f"{domain}.enable", session)
        browser.ask("Page.navigate", session, url=page.resolve().as_uri())
        browser.wait_for("Page.loadEventFired")
        answer = browser.ask("Runtime.evaluate", session, expression=DRAWN, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"]["value"], [*wrong(browser.events)]


def wrong(events: list[dict]) -> Iterator[str]:
    """Exceptions, and what was logged as an error."""
    for event in events:
        told = event.get("params", {})
        if event.get("method") == "Runtime.exceptionThrown":
            yield json.dumps(told["exceptionDetails"])
        if event.get("method") == "Log.entryAdded" and told["entry"]["level"] == "error":
            yield told["entry"]["text"]
        if event.get("method") == "Runtime.consoleAPICalled" and told["type"] in ("error", "assert"):
            yield json.dumps(told["args"])
