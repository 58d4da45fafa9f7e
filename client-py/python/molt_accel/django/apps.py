"""The Django app. It opens nothing: a session belongs to the process that sends the first request."""

from __future__ import annotations

from django.apps import AppConfig


class MoltConfig(AppConfig):
    """`INSTALLED_APPS += ["molt_accel.django"]`."""

    name = "molt_accel.django"
    label = "molt"
    verbose_name = "molt"

    def ready(self) -> None:
        from .settings import read

        read()  # a typo in MOLT stops the start, not the first request
