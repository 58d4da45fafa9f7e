"""Signals: what a project may want to count, page somebody for, or test.

| signal | arguments | when |
| --- | --- | --- |
| `request_failed` | request, error, status | an offloaded request ended in an error, or its client hung up |
| `fell_back` | request, error | the view's own code runs, since the worker could not answer |
| `breaker_changed` | client, state, reason | this process stops waiting for a worker ("open"), or found one ("closed") |
| `shadow_differed` | request, entry, difference | a shadowed view and the worker disagree; difference is text |
"""

from __future__ import annotations

import asyncio
from typing import Any

from django.dispatch import Signal

request_failed = Signal()
fell_back = Signal()
breaker_changed = Signal()
shadow_differed = Signal()

_telling: set[asyncio.Task[Any]] = set()
"""What an event loop would collect while it runs: it keeps no task alive by itself."""


def tell(signal: Signal, **told: Any) -> None:
    """Sends it from any code that is not async; a receiver that raises is logged by Django and harms nobody.

    An event loop's own thread cannot wait for an async receiver, so there all of them run as a task of the loop.
    """
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        signal.send_robust(**told)
        return
    task = loop.create_task(signal.asend_robust(**told))
    _telling.add(task)
    task.add_done_callback(_telling.discard)


async def atell(signal: Signal, **told: Any) -> None:
    """`tell` from async code: the receivers have run when it returns."""
    await signal.asend_robust(**told)
