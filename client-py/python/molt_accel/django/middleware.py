"""`request.molt`: the process's client, for views that call entries and ask tables directly."""

from __future__ import annotations

from collections.abc import Callable
from inspect import iscoroutinefunction
from typing import Any

from asgiref.sync import markcoroutinefunction
from django.http import HttpRequest

from .clients import client


class MoltMiddleware:
    """`MIDDLEWARE += ["molt_accel.django.middleware.MoltMiddleware"]`. It opens nothing: the client attaches at the
    first call that a view makes with it, so pages that make none are served without a worker too."""

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        self.get_response = get_response
        if iscoroutinefunction(get_response):
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> Any:
        request.molt = client()  # type: ignore[attr-defined]
        return self.get_response(request)  # under ASGI a coroutine, for whoever called to await
