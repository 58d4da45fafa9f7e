"""`manage.py molt_worker`: the worker that the project's settings describe."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import connections

from molt_accel.client import Client
from molt_accel.django import settings, tables
from molt_accel.django.command import command

PR_SET_PDEATHSIG = 1
LOOK_SECONDS = 0.5
"""Between two looks at the manifest's files."""


class Command(BaseCommand):
    help = (
        "Starts molt_worker with the project's settings (MOLT: SHM, SOCKET, EXPORTS, ARENA, WORKER_ARGS) and keeps the "
        "tables of MOLT['TABLES'] fresh in it. Flags after -- go to the worker as they are: "
        "manage.py molt_worker -- --threads 4"
    )
    requires_system_checks = ()  # they would say that no worker runs

    def add_arguments(self, parser: Any) -> None:
        parser.add_argument(
            "--reload",
            action="store_true",
            help="for development: when the manifest or a file beside it changes, a new worker takes over in place",
        )
        parser.add_argument("flags", nargs="*", metavar="-- FLAG", help="further flags of molt_worker")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            line = command(options["flags"])
        except FileNotFoundError as reason:
            raise CommandError(str(reason)) from None
        if not options["reload"] and not tables.wanted():
            sys.stdout.flush()
            os.execv(line[0], line)  # signals, the exit status and the terminal are the worker's own
        self._stay(line, options["reload"])

    def _stay(self, line: list[str], reload: bool) -> None:
        """Runs the worker until it ends or Ctrl-C; meanwhile keeps its tables fresh, and its manifest, if so asked."""
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends as by Ctrl-C: with the worker
        worker = _started(line)
        over = Event()
        keeper = Thread(target=_keep_fresh, args=(over,), name="molt-tables", daemon=True)
        keeper.start()
        seen = _stamps()
        try:
            while worker.poll() is None:
                time.sleep(LOOK_SECONDS)
                stamps = _stamps() if reload else seen
                if stamps == seen:
                    continue
                changed = sorted({str(path) for path, _ in stamps.items() ^ seen.items()})
                seen = stamps
                self.stderr.write(f"molt_worker: {', '.join(changed)} changed, a new worker takes over")
                worker = self._taken_over(line, worker)
        except KeyboardInterrupt:
            pass
        finally:
            over.set()
            worker.terminate()
            status = worker.wait()
        if status > 0:
            raise CommandError(f"molt_worker ended with {status}", returncode=status)

    def _taken_over(self, line: list[str], old: subprocess.Popen[bytes]) -> subprocess.Popen[bytes]:
        new = _started([*line, "--replace"])
        while new.poll() is None:
            if old.poll() is not None:  # it has left, as it does when another took its name
                return new
            time.sleep(0.02)
        self.stderr.write("molt_worker: the new one did not start, the old one goes on")
        return old


def _started(line: list[str]) -> subprocess.Popen[bytes]:
    """A worker that is told to end when this process dies, however it does: nobody would be left to end it."""
    prctl, parent = ctypes.CDLL(None, use_errno=True).prctl, os.getpid()

    def tie() -> None:
        prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it died before it could be noticed
            os._exit(1)

    return subprocess.Popen(line, preexec_fn=tie)


def _keep_fresh(over: Event) -> None:
    if not tables.wanted():
        return
    wanted = settings.read()
    client = Client(wanted.SHM, 0.0, wanted.SOCKET)
    try:
        tables.keep_fresh(client, over.is_set, over.wait)
    finally:
        client.close()
        connections.close_all()


def _stamps() -> dict[Path, int]:
    """The manifest and every file beside it (SQL, libraries, tables), with their times of change."""
    exports = settings.read().EXPORTS
    manifest = Path("molt_exports.json" if exports is None else exports)
    try:
        files = [manifest] if exports is None else list(manifest.resolve().parent.iterdir())
    except OSError:
        return {}
    stamps = {}
    for path in files:
        with suppress(OSError):  # gone between the two looks
            if path.is_file():
                stamps[path] = path.stat().st_mtime_ns
    return stamps
