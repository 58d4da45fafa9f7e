"""The `Server-Timing` header: what an offload cost, where browsers' developer tools show it.

`molt;desc="order_summary";dur=3.1, molt-queue;dur=0.1, molt-run;dur=2.8, molt-transport;dur=0.2`: milliseconds, all in
all, waiting for a thread, running, and the way there and back. A request that was not offloaded says why instead:
`molt-own;desc="unavailable"`. A worker that serves another manifest than the settings name adds
`molt-skew;desc="other manifest"`.
"""

from __future__ import annotations

from time import perf_counter
from typing import TypeVar

from django.conf import settings as django_settings
from django.http.response import HttpResponseBase

from ..answer import Metrics
from . import settings, skew

HEADER = "Server-Timing"
now = perf_counter
Answered = TypeVar("Answered")


def is_on() -> bool:
    """Whether answers carry the header."""
    wanted = settings.read().SERVER_TIMING
    return bool(django_settings.DEBUG) if wanted is None else wanted


def offloaded(response: HttpResponseBase, entry: str, began: float, metrics: Metrics) -> None:
    """An answer of the worker's; `began` is what `now()` said before the request was sent."""
    if not is_on():
        return
    whole = (now() - began) * 1000
    queue, run = metrics.queue_us / 1000, metrics.exec_us / 1000
    transport = max(0.0, whole - queue - run)
    _add(
        response,
        f'molt;desc="{_quotable(entry)}";dur={whole:.3f}, molt-queue;dur={queue:.3f}, '
        f"molt-run;dur={run:.3f}, molt-transport;dur={transport:.3f}",
    )
    if skew.known():
        _add(response, 'molt-skew;desc="other manifest"')


def own_code(response: Answered, reason: str) -> Answered:
    """An answer of the view's own code, and why it is."""
    if isinstance(response, HttpResponseBase) and is_on():
        _add(response, f'molt-own;desc="{_quotable(reason)}"')
    return response


def _add(response: HttpResponseBase, text: str) -> None:
    before = response.headers.get(HEADER)
    response.headers[HEADER] = f"{before}, {text}" if before else text


def _quotable(text: str) -> str:
    return "".join(char if char.isalnum() or char in "._- " else "_" for char in text)
