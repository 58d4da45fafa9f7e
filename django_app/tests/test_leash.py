"""The leash ends what these tests started, whatever becomes of the tests."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.processes import PROJECT, Held
from tests.waiting import until

HOLDER = """
import signal, sys
from pathlib import Path
from tests.processes import Held
held = Held(["sh", "-c", "sleep 1000 & echo $!; trap '' TERM; wait"], Path(sys.argv[1]), unlink=sys.argv[2])
print(held.pid, flush=True)
signal.pause()
"""


def alive(pid: int) -> bool:
    """Whether a process has this id and is more than a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_stopped_command_is_gone(tmp_path: Path) -> None:
    held = Held(["sleep", "1000"], tmp_path / "log")
    assert held.running and alive(held.pid)
    held.stop()
    assert not alive(held.pid)


def test_kill_9_of_the_tests_ends_commands_and_names(tmp_path: Path) -> None:
    name = Path(f"/dev/shm/molt-leash-{os.getpid()}")
    log = tmp_path / "log"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(log), name.name], stdout=subprocess.PIPE, cwd=PROJECT, text=True
    )
    command = int(holder.stdout.readline())
    grandchild = int(until(log.read_text, "the command has started its own child"))
    name.touch()
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    holder.stdout.close()
    until(lambda: not alive(command), "the command that ignores SIGTERM is gone", 30)
    until(lambda: not alive(grandchild), "its child is gone")
    until(lambda: not name.exists(), "its name is gone")
