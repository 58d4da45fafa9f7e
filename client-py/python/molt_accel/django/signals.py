"""Signals: what a project may want to count, page somebody for, or test.

| signal | arguments | when |
| --- | --- | --- |
| `request_failed` | request, error, status | an offloaded request ended in an error answer |
| `fell_back` | request, error | the view's own code runs, since the worker could not answer |
| `breaker_changed` | client, state, reason | this process stops waiting for a worker ("open"), or found one ("closed") |
| `shadow_differed` | request, entry, difference | a shadowed view and the worker disagree; difference is text |
"""

from __future__ import annotations

from django.dispatch import Signal

request_failed = Signal()
fell_back = Signal()
breaker_changed = Signal()
shadow_differed = Signal()
