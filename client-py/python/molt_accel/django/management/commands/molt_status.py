"""`manage.py molt_status`: the worker that the settings name, its entries and who uses it."""

from __future__ import annotations

import json
import os
from typing import Any, NoReturn

from django.core.management.base import BaseCommand, CommandError

from molt_accel._find_worker import find_worker
from molt_accel.client import Client
from molt_accel.django import settings, skew, switch, tables
from molt_accel.errors import MoltError


class Command(BaseCommand):
    help = "Shows the worker that the project's settings name: state, sessions, entries with their times, outcomes."
    requires_system_checks = ()

    def add_arguments(self, parser: Any) -> None:
        parser.add_argument("--json", action="store_true", help="what `molt-shm-stat --json` prints")
        parser.add_argument("--watch", action="store_true", help="live, by `molt-shm-stat --watch`")

    def handle(self, *args: Any, **options: Any) -> None:
        wanted = settings.read()
        if options["watch"]:
            _watch(wanted)
        client = Client(wanted.SHM, 0.0, wanted.SOCKET)
        try:
            stats = client.stats()
            told = [] if options["json"] else _told(client)
        except MoltError as reason:
            raise CommandError(str(reason)) from None
        finally:
            client.close()
        if options["json"]:
            self.stdout.write(json.dumps(stats, indent=2))
            return
        worker, arena = stats["worker"], stats["arena"]
        self.stdout.write(
            f"worker    {client.where}: {worker['state']}, process {worker['pid']}, up {_span(worker['uptime_s'])}"
        )
        self.stdout.write(f"arena     {_size(arena['used_bytes'])} of {_size(arena['total_bytes'])} used")
        in_flight = sum(session["in_flight"] for session in stats["sessions"])
        self.stdout.write(f"sessions  {len(stats['sessions'])} processes, {in_flight} requests in flight")
        off = switch.reason()
        self.stdout.write(f"offload   {'on' if off is None else f'OFF: {off}'}")
        failed = {name: count for name, count in stats["totals"].items() if name in _OUTCOMES and count}
        for line in told:
            self.stdout.write(line)
        answered = ", ".join(f"{name} {count:,}" for name, count in {"ok": stats["totals"]["ok"], **failed}.items())
        self.stdout.write(f"outcomes  {answered}")
        entries = [entry for entry in stats["entries"] if entry["calls"] or not entry["name"].startswith("molt.")]
        width = max([len("entry"), *(len(entry["name"]) for entry in entries)])
        self.stdout.write(f"\n{'entry':{width}}  {'calls':>12}  {'p50':>10}  {'p99':>10}  {'p99.9':>10}")
        for entry in entries:
            times = (f"{_micros(entry[key]) if entry['calls'] else '-':>10}" for key in ("p50_us", "p99_us", "p999_us"))
            self.stdout.write(f"{entry['name']:{width}}  {entry['calls']:>12,}  {'  '.join(times)}")


def _watch(wanted: settings.Settings) -> NoReturn:
    """Becomes the stat tool, which lies where the worker's executable does."""
    try:
        program = find_worker().with_name("molt-shm-stat")
        os.execv(
            program, [program.name, *([wanted.SHM] if wanted.SHM else ["--socket", str(wanted.SOCKET)]), "--watch"]
        )
    except OSError as reason:
        raise CommandError(str(reason)) from None


def _told(client: Client) -> list[str]:
    """What only the worker itself can say; nothing while it does not answer."""
    lines = []
    try:
        if skew.of_settings() is not None:
            found = skew.difference(client)
            lines.append("manifest  that of the settings" if found is None else f"manifest  DIFFERS: {found}")
        there = client.tables(ANSWER_SECONDS)
    except MoltError as reason:
        return [*lines, f"asked     no answer: {reason}"]
    lines.extend(f"LOST      {table.name}: {table.lost}" for table in there if table.lost)
    listed = [table for table in there if not table.retired and not table.lost]
    told = [f"{table.name} ({table.rows:,} rows, {tables.age(table)})" for table in listed]
    told += [f"{name} (NOT READ YET)" for name in tables.unread(listed)]
    return [*lines, f"tables    {', '.join(told)}"] if told else lines


ANSWER_SECONDS = 1.0
_OUTCOMES = frozenset(
    {"busy", "cancelled", "internal", "invalid_input", "lost", "timeout", "too_large", "unavailable", "unknown_entry"}
)


def _micros(us: float) -> str:
    return f"{us:.0f} us" if us < 1000 else f"{us / 1000:.1f} ms" if us < 1e6 else f"{us / 1e6:.2f} s"


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def _span(seconds: float) -> str:
    minutes, left = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {left} s" if minutes else f"{left} s"
