"""The Django app. It opens nothing: a session belongs to the process that sends the first request."""

from __future__ import annotations

import sys
from typing import Any

from django.apps import AppConfig
from django.core import checks
from django.core.exceptions import ImproperlyConfigured


class MoltConfig(AppConfig):
    """`INSTALLED_APPS += ["molt_accel.django"]`."""

    name = "molt_accel.django"
    label = "molt"
    verbose_name = "molt"

    def ready(self) -> None:
        from .settings import read

        try:
            read()  # a typo in MOLT stops the start, not the first request
        except ImproperlyConfigured:
            if "django.core.management" not in sys.modules:
                raise
            # manage.py: molt.E001 says it in one line, beside whatever else is wrong.
        checks.register(_check, "molt")


def _check(**kwargs: Any) -> list[checks.CheckMessage]:
    from .checks import check  # servers run no checks, and need not load them

    return check(**kwargs)
