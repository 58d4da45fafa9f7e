"""`manage.py molt_worker`: the worker that the project's settings describe."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from threading import Event, Thread
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import connections

from molt_accel.client import Client
from molt_accel.django import manifest, settings, tables
from molt_accel.django.command import command

PR_SET_PDEATHSIG = 1
SI_KERNEL = 0x80
"""Code of a SIGHUP that nobody sent: the terminal is gone."""
LOOK_SECONDS = 0.5
"""Between two looks at the manifest's files."""
TAKE_OVER_SECONDS = 0.05
"""Between two looks how far a new worker has come."""
AWAITED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)


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
            help="for development: when the manifest or a file that it names changes, a new worker takes over in place",
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
        status = _Running(line, options["reload"], self.stderr.write).until_the_end()
        if status < 0:
            name = signal.Signals(-status).name
            raise CommandError(f"molt_worker was ended by {name}", returncode=128 - status)
        if status > 0:
            raise CommandError(f"molt_worker ended with {status}", returncode=status)


class _Running:
    """The worker, and what this process does beside it: keeps its tables fresh, and its manifest, if so asked.

    SIGTERM and Ctrl-C end both. SIGHUP has a new worker take over in place, as a supervised worker's own does.
    """

    def __init__(self, line: Sequence[str], reload: bool, say: Callable[[str], object]) -> None:
        self._line = line
        self._say = say
        self._watch = manifest.Watch() if reload else None
        self._next: subprocess.Popen[bytes] | None = None

    def until_the_end(self) -> int:
        """The worker's exit status; 0 where this process was told to end it."""
        signal.pthread_sigmask(
            signal.SIG_BLOCK, AWAITED
        )  # of all threads to come: they are waited for, and so not lost
        self._worker = _started(self._line)
        over, stopped = Event(), False
        Thread(target=_keep_fresh, args=(over,), name="molt-tables", daemon=True).start()
        try:
            while not stopped and self._lives():
                stopped = self._told_to_stop()
                self._look()
        finally:
            over.set()
            for process in filter(None, (self._worker, self._next)):
                process.terminate()
                process.wait()
            signal.pthread_sigmask(signal.SIG_UNBLOCK, AWAITED)
        return 0 if stopped else self._worker.returncode

    def _lives(self) -> bool:
        """Whether there is a worker; one that has taken over is it from now on."""
        gone = self._worker.poll() is not None  # it leaves when another has taken its name
        if self._next is not None and gone:
            self._worker, self._next = self._next, None
        elif self._next is not None and self._next.poll() is not None:
            self._next = None
            self._say("molt_worker: the new one did not start, the old one goes on")
        return not gone or self._worker.poll() is None

    def _told_to_stop(self) -> bool:
        """Waits a moment for a signal, and does what it says."""
        told = signal.sigtimedwait(AWAITED, LOOK_SECONDS if self._next is None else TAKE_OVER_SECONDS)
        if told is None or told.si_signo == signal.SIGCHLD:
            return False
        if told.si_signo == signal.SIGHUP and told.si_code != SI_KERNEL:
            self._renew()
            return False
        return True

    def _look(self) -> None:
        if self._watch is None or self._next is not None:  # what changes meanwhile is seen when that one has taken over
            return
        if changed := self._watch.changed():
            self._say(f"molt_worker: {', '.join(map(str, changed))} changed, a new worker takes over")
            self._renew()

    def _renew(self) -> None:
        if "--supervise" in self._line:
            self._worker.send_signal(signal.SIGHUP)
        elif self._next is None:  # else one is on its way
            self._next = _started([*self._line, "--replace"])


def _started(line: Sequence[str]) -> subprocess.Popen[bytes]:
    """A worker that is told to end when this process dies, however it does: nobody would be left to end it."""
    prctl, parent = ctypes.CDLL(None, use_errno=True).prctl, os.getpid()

    def tie() -> None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, AWAITED)
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
