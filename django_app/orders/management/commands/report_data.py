"""`manage.py report_data`: the order lines of the report, made once."""

from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from molt_accel import MoltError
from molt_accel.django import client

from orders.report import database, generate
from orders.report.files import customers_path, lines_path


class Command(BaseCommand):
    help = (
        "Makes the order lines of the report: Parquet files in settings.REPORT_DATA, and the database of "
        "/baseline/report/. What is there already stays. DEMO_REPORT_LINES says how many lines, for this command and "
        "for the servers alike."
    )
    requires_system_checks = ()  # they would say that no worker runs

    def add_arguments(self, parser: Any) -> None:
        parser.add_argument("--load", action="store_true", help="puts the tables into the running worker too")
        parser.add_argument("--no-database", action="store_true", help="leaves the database of /baseline/report/ out")
        parser.add_argument("--again", action="store_true", help="makes everything anew")

    def handle(self, *args: Any, **options: Any) -> None:
        lines = settings.REPORT_LINES
        if options["again"] or generate.written_lines() != lines:
            self._step(f"{lines:,} order lines into {lines_path().parent}", partial(generate.write_parquet, lines))
            options["again"] = True  # a database would be of other lines
        if not options["no_database"] and (options["again"] or database.filled_lines() != lines):
            self._step("the same into the database of /baseline/report/", database.fill)
        if options["load"]:
            self._step("the same into the worker", _load)

    def _step(self, what: str, work: Callable[[generate.Progress], object]) -> None:
        """Does it, and says at every tenth how far it has come."""
        began, tenths = monotonic(), 0

        def told(done: int, total: int) -> None:
            nonlocal tenths
            if done * 10 // total > tenths:
                tenths = done * 10 // total
                self.stdout.write(f"  {tenths * 10} % after {monotonic() - began:.1f} s")
                self.stdout.flush()

        self.stdout.write(what)
        work(told)
        self.stdout.write(f"  done after {monotonic() - began:.1f} s")


def _load(told: generate.Progress) -> None:
    try:
        client().load("customers", customers_path())
        client().load("order_lines", lines_path())
    except MoltError as reason:
        raise CommandError(str(reason)) from None
