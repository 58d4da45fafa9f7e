"""Ends a spawned worker whose parent has died without a word, by SIGKILL or the end of a pool's child: a process beside it.

    python _guard.py PARENT WORKER FOLDER [NAME]

PARENT and WORKER are inherited descriptors of the two processes (pidfds), so no process id can have been given to another
one meanwhile. A parent-death signal would need no process, but the kernel sends it when the thread that started the worker
ends; a pipe ends when nobody holds it any more, and forked children would. The guard ends with whichever ends first.
"""

import fcntl
import os
import select
import shutil
import signal
import sys

STOP_SECONDS = 5.0
"""How long a worker may take to end after SIGTERM; then it is killed."""


def remove_left(name: str) -> None:
    """Removes the segment of a worker that was killed. A live worker holds the lock of its segment, as spec/ says."""
    path = f"/dev/shm/{name.lstrip('/')}"
    try:
        with open(path, "r+b") as segment:
            # A record lock: it and the worker's lock (of its open file) exclude each other; a flock would not.
            fcntl.lockf(segment, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.stat(path).st_ino == os.fstat(segment.fileno()).st_ino:
                os.unlink(path)
    except (FileNotFoundError, BlockingIOError, PermissionError):
        pass


def guard(parent: int, worker: int, folder: str, name: str | None) -> None:
    """Waits for the end of either, and leaves nothing of the worker where its parent was first."""
    if worker in _ended(None, parent, worker):
        return  # what is left of it is the parent's to look at, and to remove
    signal.pidfd_send_signal(worker, signal.SIGTERM)
    if not _ended(STOP_SECONDS, worker):
        signal.pidfd_send_signal(worker, signal.SIGKILL)
        _ended(None, worker)
    if name is not None:
        remove_left(name)
    shutil.rmtree(folder, ignore_errors=True)


def _ended(seconds: float | None, *processes: int) -> list[int]:
    """Those that have ended, after waiting for one of them."""
    waiting = select.poll()
    for process in processes:
        waiting.register(process, select.POLLIN)
    return [process for process, _ in waiting.poll(None if seconds is None else seconds * 1000)]


if __name__ == "__main__":
    guard(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4] if len(sys.argv) > 4 else None)
