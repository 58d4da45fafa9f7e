"""A process of the run, with all that it starts itself."""

import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from .errors import BenchError
from .owned import Owned
from .say import Say

GRACE_SECONDS = 10.0
LOOK_SECONDS = 1.0

Command = Sequence[str | Path]


class Child:
    """A command in a process group of its own: a Ctrl-C in the terminal reaches the run alone, which ends its children
    in order. Start it with `start`; its output goes to `log`."""

    def __init__(self, what: str, command: Command, log: Path, env: dict[str, str], cwd: Path | None) -> None:
        self.what = what
        self.log = log
        self.cpu_seconds = 0.0  # user and system time of the command, known once it has ended
        log.parent.mkdir(parents=True, exist_ok=True)
        try:
            with log.open("ab") as output:
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env={**os.environ, **env},
                    cwd=cwd,
                    start_new_session=True,
                )
        except OSError as reason:
            raise BenchError(f"{what} does not start: {reason}") from reason
        self.pid = self._process.pid
        self._ended = os.pidfd_open(self.pid)

    def __str__(self) -> str:
        return f"{self.what} (process {self.pid})"

    def ended(self, within: float | None = 0) -> bool:
        """Whether the command has ended, after waiting for that at most `within` seconds (None: without end)."""
        if self._process.returncode is not None:
            return True
        waiting = select.poll()
        waiting.register(self._ended, select.POLLIN)
        return bool(waiting.poll(None if within is None else within * 1000))

    def wait(self, seconds: float | None = None) -> int:
        """The command's exit status, negative for a signal. Raises BenchError when it takes longer than `seconds`."""
        if not self.ended(seconds):
            raise self._late(seconds)
        return self._reap()

    def follow(self, say: Say, seconds: float) -> int:
        """`wait`, which tells each last line that the command prints meanwhile."""
        began, told = time.monotonic(), ""
        while not self.ended(LOOK_SECONDS):
            if time.monotonic() - began > seconds:
                raise self._late(seconds)
            if (line := self.tail(1)) != told:
                say(line)
                told = line
        return self._reap()

    def _late(self, seconds: float | None) -> BenchError:
        return BenchError(f"{self} has not ended within {seconds:.0f} s", f"its output is in {self.log}")

    def stop(self, grace: float = GRACE_SECONDS) -> int:
        """Asks the command to end, makes it end after `grace` seconds, and ends what it left in its group."""
        if self._process.returncode is None and not self.ended():
            os.kill(self.pid, signal.SIGTERM)
            self.ended(grace)
        return self._reap()

    def _reap(self) -> int:
        if self._process.returncode is not None:
            return self._process.returncode
        # The group is killed before its leader is reaped: until then nobody else can be given this number.
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        _, status, usage = os.wait4(self.pid, 0)
        self._process.returncode = os.waitstatus_to_exitcode(status)
        self.cpu_seconds = usage.ru_utime + usage.ru_stime
        os.close(self._ended)
        return self._process.returncode

    def tail(self, lines: int = 12) -> str:
        """The end of what the command has printed."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def fail_if_ended(self) -> None:
        """Raises BenchError with the end of the output when the command has ended though it should be running."""
        if self.ended():
            status = self._reap()
            raise BenchError(f"{self} ended with status {status}. Its last lines:\n{self.tail()}")


def start(
    owned: Owned,
    what: str,
    command: Command,
    log: Path,
    env: dict[str, str] | None = None,
    cwd: Path | None = None,
    grace: float = GRACE_SECONDS,
) -> Child:
    """Starts a command that ends with the run at the latest."""
    return owned.start(lambda: Child(what, command, log, env or {}, cwd), lambda child: child.stop(grace))


def until(condition: Callable[[], object], what: str, seconds: float, child: Child | None = None) -> None:
    """Waits for a condition that nothing announces, looking every 5 ms, and fails at once when `child` ends."""
    deadline = time.monotonic() + seconds
    while not condition():
        if child is not None:
            child.fail_if_ended()
        if time.monotonic() > deadline:
            hint = None if child is None else f"its output is in {child.log}"
            raise BenchError(f"{what} did not happen within {seconds:.0f} s", hint)
        time.sleep(0.005)
