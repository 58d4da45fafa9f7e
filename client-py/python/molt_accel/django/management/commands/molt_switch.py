"""`manage.py molt_switch off`: every decorated view of this host runs its own code, from its next request on."""

from __future__ import annotations

import os
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from molt_accel.django import switch


class Command(BaseCommand):
    help = (
        "Turns offloading off or on for every process of this host at once: views under @molt_offload run their own "
        "code while it is off. Views that call offload() themselves are not concerned."
    )
    requires_system_checks = ()

    def add_arguments(self, parser: Any) -> None:
        parser.add_argument("to", nargs="?", choices=("on", "off"), help="without it: shows what holds now")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["to"] == "off":
            try:
                switch.turn_off()
            except FileExistsError:
                if switch.reason() is None:
                    raise CommandError(
                        f"{switch.path()} belongs to another user. hint: remove it as that user or as root"
                    ) from None
            except OSError as reason:
                raise CommandError(f"{switch.path()}: {reason.strerror}") from None
        elif options["to"] == "on":
            try:
                switch.turn_on()
            except OSError as reason:
                raise CommandError(f"{switch.path()}: {reason.strerror}") from None
        off = switch.reason()
        self.stdout.write("offloading is on" if off is None else f"offloading is off: {off}")
        if options["to"] == "off" and switch.owner() is None and os.geteuid() != 0:
            self.stdout.write(f"no worker says whose processes offload; those of user {os.geteuid()} heed this")
        if options["to"] == "on" and off is not None:
            raise CommandError("it stays off until that is changed too")
