"""`manage.py molt_tables`: the tables that lie in shared memory, once for every process."""

from __future__ import annotations

import json
import os
import traceback
from collections.abc import Sequence
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from molt_accel.client import Client
from molt_accel.django import settings, tables
from molt_accel.errors import MoltError
from molt_accel.resident import TableInfo


class Command(BaseCommand):
    help = (
        "Lists the tables that the worker keeps in shared memory; loads one from a file, reads those of the settings' "
        "querysets again, or drops one."
    )
    requires_system_checks = ()

    def add_arguments(self, parser: Any) -> None:
        parser.add_argument("--json", action="store_true", help="as JSON")
        actions = parser.add_subparsers(dest="action", metavar="load | refresh | drop")
        load = actions.add_parser("load", help="publishes a Parquet, CSV, JSON-lines or Arrow file")
        load.add_argument("name")
        load.add_argument("path")
        refresh = actions.add_parser("refresh", help="reads the querysets of MOLT['TABLES'] again")
        refresh.add_argument("names", nargs="*", metavar="NAME", help="these alone; without any, all of them")
        drop = actions.add_parser("drop", help="takes a name away; who reads the table reads on")
        drop.add_argument("name")

    def handle(self, *args: Any, **options: Any) -> None:
        wanted = settings.read()
        try:
            with Client(wanted.SHM, 0.0, wanted.SOCKET) as client:
                if options["action"] == "load":
                    self._print([client.load(options["name"], options["path"])], options)
                elif options["action"] == "refresh":
                    self._refresh(client, options)
                elif options["action"] == "drop":
                    if not client.drop(options["name"]):
                        raise CommandError(f"no table is called {options['name']!r}")
                else:
                    listed = client.tables()
                    self._print(listed, options, tables.unread(listed))
        except (MoltError, ValueError) as reason:
            raise CommandError(str(reason)) from None

    def _refresh(self, client: Client, options: dict[str, Any]) -> None:
        """Reads one after the other; what fails keeps nobody else from being read."""
        read, failed = [], []
        for name in self._named(options["names"]):
            try:
                read.append(tables.refresh(client, name))
            except Exception as reason:  # of the database, of the project's own function, or of the worker
                failed.append(name)
                told = f"{type(reason).__name__}: {reason}"
                self.stderr.write(f"{name} is not refreshed, its last version stays: {told}")
                if options["traceback"]:
                    self.stderr.write(traceback.format_exc())
        if read or not failed:
            self._print(read, options)
        if failed:
            raise CommandError(f"not refreshed: {', '.join(failed)}")

    def _named(self, names: list[str]) -> list[str]:
        known = list(tables.wanted())
        for name in names:
            if name not in known:
                there = ", ".join(known) or "none"
                raise CommandError(f"MOLT['TABLES'] has no {name!r}. hint: there are {there}")
        return names or known

    def _print(self, listed: list[TableInfo], options: dict[str, Any], unread: Sequence[str] = ()) -> None:
        """Lists them; `unread`: names of the settings under which there is nothing yet."""
        if options["json"]:
            rows = [{name: getattr(table, name) for name in TableInfo.__slots__} for table in listed]
            rows += [dict.fromkeys(TableInfo.__slots__) | {"name": name} for name in unread]
            self.stdout.write(json.dumps(rows, indent=2))
            return
        if not listed and not unread:
            self.stdout.write("no tables. hint: manage.py molt_tables load NAME PATH, or client.put(name, data)")
            return
        width = max(len(name) for name in ("table", *(table.name for table in listed), *unread))
        self.stdout.write(
            f"{'table':{width}}  {'version':>7}  {'rows':>13}  {'bytes':>15}  {'readers':>7}  {'age':>12}  from"
        )
        for table in listed:
            origin = "(replaced)" if table.retired else os.path.basename(table.source) if table.source else "a client"
            origin += " (LOST)" if table.lost else "" if table.resident else " (on disk)"
            self.stdout.write(
                f"{table.name:{width}}  {table.version:>7}  {table.rows:>13,}  {table.bytes:>15,}  "
                f"{len(table.readers):>7}  {tables.age(table):>12}  {origin}"
            )
            for column, kind in table.schema if options["verbosity"] > 1 else ():
                self.stdout.write(f"  {column}: {kind}")
        for name in unread:
            self.stdout.write(f"{name:{width}}  {'-':>7}  {'-':>13}  {'-':>15}  {'-':>7}  {'-':>12}  NOT READ YET")
