"""CPU and memory of process trees."""

import os
import signal
import subprocess
import sys
from multiprocessing import shared_memory

import pytest

from bench.runner import usage
from bench.runner.child import until

MIB = 1 << 20
# A parent that idles while its child burns CPU and fills memory; a line on standard output when that is done.
FAMILY = """
import os, sys, time
if os.fork():
    os.wait()
else:
    while time.process_time() < 0.4: pass
    kept = bytearray(b"x") * (64 << 20)
    print("burnt", flush=True)
    sys.stdin.read()
"""


def test_children_count() -> None:
    with subprocess.Popen([sys.executable, "-c", FAMILY], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as family:
        assert family.stdout is not None
        assert family.stdout.readline() == b"burnt\n"
        seen = usage.of(family.pid)
        family.communicate()
    assert 0.4 <= seen.cpu_s < 4
    assert seen.rss_mb > 64
    assert seen.pss_mb <= seen.rss_mb


def test_a_tree_that_is_gone_has_no_usage() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        gone.wait()
    assert usage.of(gone.pid) == usage.Usage() == usage.of(None)
    assert not usage.at_rest(gone.pid), "an ended server is no server at rest"


def test_between_two_looks_cpu_is_a_difference_and_memory_the_later() -> None:
    assert usage.since(usage.Usage(2.0, 10.0, 5.0), usage.Usage(5.5, 30.0, 20.0)) == usage.Usage(3.5, 30.0, 20.0)


# A parent that idles while its child works for a while and then idles too.
BUSY = """
import os, time
if os.fork():
    os.wait()
else:
    while time.process_time() < 1.0: pass
    time.sleep(600)
"""


def test_a_tree_is_at_rest_when_its_children_are() -> None:
    with subprocess.Popen([sys.executable, "-c", BUSY], start_new_session=True) as family:
        try:
            until(lambda: usage.of(family.pid).cpu_s > 0.1, "that the child works", 30)
            assert not usage.at_rest(family.pid)
            until(lambda: usage.at_rest(family.pid), "that the child is through", 30)
            assert usage.of(family.pid).cpu_s >= 0.95
        finally:
            os.killpg(family.pid, signal.SIGKILL)


def test_private_memory_leaves_shared_memory_out() -> None:
    before = usage.private_mb(os.getpid())
    arena = shared_memory.SharedMemory(create=True, size=64 * MIB)
    try:
        arena.buf[:] = bytes(len(arena.buf))
        assert usage.private_mb(os.getpid()) - before < 16
        kept = bytearray(b"x") * (64 * MIB)
        assert usage.private_mb(os.getpid()) - before == pytest.approx(67, abs=16)
        del kept
    finally:
        arena.close()
        arena.unlink()
