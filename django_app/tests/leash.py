"""Runs a command and ends it when the process that holds this one's standard input is gone, even by kill -9.

    python leash.py [--unlink PREFIX] COMMAND...

Writes the command's process id to standard output; the command's own output goes to standard error. When standard input
ends, the command's whole process group ends, and the shared-memory names that begin with PREFIX are removed.
"""

import argparse
import os
import select
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

GRACE_SECONDS = 5


def end(child: subprocess.Popen) -> None:
    """Asks the command to stop, then ends whatever is left of its group."""
    if child.poll() is None:
        child.terminate()
        with suppress(subprocess.TimeoutExpired):
            child.wait(GRACE_SECONDS)
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def main() -> int:
    """Holds one command until it ends or standard input does; returns the command's exit status."""
    options = argparse.ArgumentParser()
    options.add_argument("--unlink")
    options.add_argument("command", nargs=argparse.REMAINDER)
    chosen = options.parse_args()
    child = subprocess.Popen(chosen.command, stdin=subprocess.DEVNULL, stdout=sys.stderr, start_new_session=True)
    print(child.pid, flush=True)
    ended = os.pidfd_open(child.pid)
    readable, _, _ = select.select([ended, sys.stdin], [], [])
    end(child)
    if sys.stdin in readable and chosen.unlink:
        for name in Path("/dev/shm").glob(chosen.unlink.lstrip("/") + "*"):
            name.unlink(missing_ok=True)
    return child.returncode


if __name__ == "__main__":
    sys.exit(main())
