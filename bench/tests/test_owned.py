"""Nothing outlives the run: not its children, nor theirs, whatever happens and whenever."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from bench.runner import child
from bench.runner.child import until
from bench.runner.errors import BenchError
from bench.runner.owned import Owned, Stopped
from bench.runner.paths import ROOT

# A server as bad as they come: it has a worker of its own, and both ignore every polite request to end.
STUBBORN = """
import os, signal, sys, time
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
os.fork()
open(sys.argv[1] + "/" + str(os.getpid()), "w").close()
time.sleep(600)
"""
# A run with such a server, which waits for ever.
RUN = """
import sys
from pathlib import Path
from bench.runner import child
from bench.runner.owned import Owned, Stopped
try:
    with Owned() as owned:
        place = Path(sys.argv[1])
        owned.start(lambda: place / "name", lambda name: name.unlink()).write_text("")
        child.start(owned, "stubborn", [sys.executable, "-c", sys.argv[2], place], place / "log", grace=0.2).wait()
except Stopped as stopped:
    sys.exit(stopped.exit_code)
"""


def pids(folder: Path) -> list[int]:
    return [int(path.name) for path in folder.iterdir() if path.name.isdigit()]


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_children_that_will_not_go(number: int, tmp_path: Path) -> None:
    run = subprocess.Popen([sys.executable, "-c", RUN, str(tmp_path), STUBBORN], cwd=ROOT)
    until(lambda: len(pids(tmp_path)) == 2, "both stubborn processes run", 20)
    run.send_signal(number)
    assert run.wait(20) == 128 + number
    until(lambda: not any(alive(pid) for pid in pids(tmp_path)), "both have ended", 5)
    assert not (tmp_path / "name").exists()


def test_signals_while_it_cleans_up_do_not_stop_the_cleaning(tmp_path: Path) -> None:
    run = subprocess.Popen([sys.executable, "-c", RUN, str(tmp_path), STUBBORN], cwd=ROOT)
    until(lambda: len(pids(tmp_path)) == 2, "both stubborn processes run", 20)
    while run.poll() is None:
        run.send_signal(signal.SIGINT)
        time.sleep(0.01)
    # The last of them may strike when all is done and Python's own handlers are back.
    assert run.returncode in (130, -signal.SIGINT)
    until(lambda: not any(alive(pid) for pid in pids(tmp_path)), "both have ended", 5)


def test_a_signal_at_the_instant_of_a_start_waits_until_the_end_is_known() -> None:
    ended = []

    def begin() -> str:
        os.kill(os.getpid(), signal.SIGTERM)  # strikes while something runs that nobody has written down yet
        return "thing"

    with pytest.raises(Stopped) as stopped, Owned() as owned:
        owned.start(begin, ended.append)
    assert stopped.value.exit_code == 143
    assert ended == ["thing"]


def test_everything_ends_in_reverse_also_when_one_ending_fails(capsys: pytest.CaptureFixture[str]) -> None:
    ended = []

    def end(thing: int) -> None:
        ended.append(thing)
        if thing == 2:
            raise OSError("no")

    with pytest.raises(ArithmeticError), Owned() as owned:
        for thing in (1, 2, 3):
            owned.start(lambda thing=thing: thing, end)
        raise ArithmeticError
    assert ended == [3, 2, 1]
    assert "could not end 2: no" in capsys.readouterr().err


def test_handlers_are_put_back() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    with Owned():
        assert signal.getsignal(signal.SIGTERM) not in before
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before


def test_a_child_that_dies_is_reported_with_its_last_words(tmp_path: Path) -> None:
    with Owned() as owned:
        dying = child.start(owned, "dying", [sys.executable, "-c", "print('port is taken'); exit(3)"], tmp_path / "log")
        with pytest.raises(BenchError, match=r"(?s)dying \(process \d+\) ended with status 3.*port is taken"):
            until(lambda: False, "readiness", 20, dying)


# Says a line, and another once it has been told that somebody has read the first.
LINES = """
import os, sys, time
print("round 1", flush=True)
while not os.path.exists(sys.argv[1]): time.sleep(0.01)
print("round 2", flush=True)
exit(3)
"""


def test_who_follows_a_child_is_told_what_it_says(tmp_path: Path) -> None:
    heard: list[str] = []

    def say(line: str) -> None:
        heard.append(line)
        (tmp_path / "heard").touch()

    with Owned() as owned:
        command = [sys.executable, "-c", LINES, str(tmp_path / "heard")]
        assert child.start(owned, "rounds", command, tmp_path / "log").follow(say, 60) == 3
        assert "round 1" in heard
        endless = child.start(owned, "endless", [sys.executable, "-c", "import time; time.sleep(600)"], tmp_path / "log")
        with pytest.raises(BenchError, match="has not ended within 0 s"):
            endless.follow(say, 0.1)


def test_a_command_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with Owned() as owned, pytest.raises(BenchError, match="nothing does not start"):
        child.start(owned, "nothing", [tmp_path / "nothing"], tmp_path / "log")


def test_cpu_time_of_a_child_is_its_own(tmp_path: Path) -> None:
    busy = "import time\nwhile time.process_time() < 0.3: pass"
    with Owned() as owned:
        running = child.start(owned, "busy", [sys.executable, "-c", busy], tmp_path / "log")
        assert running.wait(20) == 0
    assert 0.3 <= running.cpu_seconds < 2


def test_what_was_started_since_a_mark_ends_alone() -> None:
    ended: list[str] = []
    with Owned() as owned:
        owned.start(lambda: "before", ended.append)
        mark = owned.mark()
        owned.start(lambda: "one", ended.append)
        owned.start(lambda: "two", ended.append)
        owned.end_since(mark)
        assert ended == ["two", "one"]
    assert ended == ["two", "one", "before"]
