"""The `Server-Timing` header: what an offload cost, where browsers' developer tools show it.

`molt;desc="order_summary";dur=3.6, molt-copy;dur=0.4, molt-queue;dur=0.1, molt-run;dur=2.8, molt-transport;dur=0.2`:
milliseconds, all in all; until the body lay where the worker reads it, its way from the HTTP client included; waiting
for a thread; running; the way there and back. What is left is the project's own: `params=`, `payload=`, `response=`. A
request that failed has `molt-failed;desc="busy"` in place of the worker's times, one that was not offloaded says why:
`molt-own;desc="unavailable"`. An answer from tables that the worker holds says how old the oldest of them is:
`molt-table-age;dur=63000`. A worker that serves another manifest than the settings name adds
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


class Clock:
    """What one request spends where, in seconds, as this side sees it."""

    __slots__ = ("began", "copying", "exchanging")

    def __init__(self) -> None:
        self.began = now()
        self.copying = 0.0
        """Until the body lay where the worker reads it."""
        self.exchanging = 0.0
        """From sending the request to having its answer."""


def is_on() -> bool:
    """Whether answers carry the header."""
    wanted = settings.read().SERVER_TIMING
    return bool(django_settings.DEBUG) if wanted is None else wanted


def offloaded(response: HttpResponseBase, entry: str, clock: Clock, metrics: Metrics) -> None:
    """An answer of the worker's."""
    if not is_on():
        return
    queue, run = metrics.queue_us / 1000, metrics.exec_us / 1000
    transport = max(0.0, clock.exchanging * 1000 - queue - run)
    parts = f"molt-queue;dur={queue:.3f}, molt-run;dur={run:.3f}, molt-transport;dur={transport:.3f}"
    _add(response, f"{_whole(entry, clock)}, {parts}")
    if metrics.table_age is not None:
        _add(response, f"molt-table-age;dur={metrics.table_age * 1000:.0f}")
    if skew.known():
        _add(response, 'molt-skew;desc="other manifest"')


def failed(response: HttpResponseBase, entry: str, clock: Clock, outcome: str) -> None:
    """An answer in place of the worker's."""
    if is_on():
        _add(response, f'{_whole(entry, clock)}, molt-failed;desc="{_quotable(outcome)}"')


def own_code(response: Answered, reason: str) -> Answered:
    """An answer of the view's own code, and why it is."""
    if isinstance(response, HttpResponseBase) and is_on():
        _add(response, f'molt-own;desc="{_quotable(reason)}"')
    return response


def _whole(entry: str, clock: Clock) -> str:
    whole, copying = (now() - clock.began) * 1000, clock.copying * 1000
    return f'molt;desc="{_quotable(entry)}";dur={whole:.3f}, molt-copy;dur={copying:.3f}'


def _add(response: HttpResponseBase, text: str) -> None:
    before = response.headers.get(HEADER)
    response.headers[HEADER] = f"{before}, {text}" if before else text


def _quotable(text: str) -> str:
    return "".join(char if char.isalnum() or char in "._- " else "_" for char in text)
