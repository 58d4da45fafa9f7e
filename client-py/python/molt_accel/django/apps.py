"""The Django app. It opens nothing: a session belongs to the process that sends the first request."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import Any

from django.apps import AppConfig
from django.core import checks
from django.core.exceptions import ImproperlyConfigured
from django.utils.autoreload import autoreload_started


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
            if not _set_up_by_a_command():
                raise
            # molt.E001 says it in one line, beside whatever else is wrong; commands that serve run the checks first.
        checks.register(_check, "molt")
        autoreload_started.connect(_watch, dispatch_uid="molt_accel.django")


def _set_up_by_a_command() -> bool:
    """Whether manage.py is what sets Django up. Its module tells nothing: `django.setup()` imports it everywhere."""
    from django.core.management import ManagementUtility

    frame = sys._getframe()
    while frame is not None:
        if frame.f_code is ManagementUtility.execute.__code__:
            return True
        frame = frame.f_back  # type: ignore[assignment]
    return False


def _watch(sender: Any, **kwargs: Any) -> None:
    """runserver begins anew with a new manifest, as it does with new code: its checks know the views' entries by it."""
    from .manifest import path

    with suppress(ImproperlyConfigured):
        manifest = path().resolve()
        sender.watch_dir(manifest.parent, manifest.name)


def _check(**kwargs: Any) -> list[checks.CheckMessage]:
    from .checks import check  # servers run no checks, and need not load them

    return check(**kwargs)
