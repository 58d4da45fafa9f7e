"""Prometheus: what this project's processes ask of the worker and what comes of it, where it has `prometheus_client`.

| metric | kind, labels | counts |
| --- | --- | --- |
| `molt_client_requests_total` | counter: entry, outcome | requests that ended, those of `shadow=` included |
| `molt_client_request_seconds` | histogram: entry | from the view to the answer, whatever it was: body, queue, run |
| `molt_client_fallbacks_total` | counter: entry, outcome | the view's own code ran instead, after which outcome |
| `molt_client_shadow_total` | counter: entry, result | comparisons: agreed, differed, failed, skipped |
| `molt_client_resends_total` | counter: kind | lost their worker: moved (never ran), again (may have), refused (no budget) |
| `molt_client_admissions_total` | counter: result | requests at `admission`: at_once, waited, refused |
| `molt_client_breaker_open` | gauge | processes whose circuit breaker is open |

They are in prometheus_client's default registry, so that whatever exposes that one exposes them; `view` does. Servers
with several processes need prometheus_client's multiprocess mode: the environment's PROMETHEUS_MULTIPROC_DIR names a
folder that is emptied before the server starts, and the numbers are then those of all processes together.
"""

from __future__ import annotations

import os
from threading import Lock
from time import perf_counter
from typing import Any
from weakref import WeakKeyDictionary

from django.http import HttpRequest, HttpResponse

from ..breaker import CLOSED
from ..errors import MoltError

try:
    import prometheus_client as prometheus
except ImportError:
    prometheus = None  # type: ignore[assignment]

BUCKETS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)

if prometheus is not None:
    _requests = prometheus.Counter("molt_client_requests", "Offloaded requests that ended", ["entry", "outcome"])
    _seconds = prometheus.Histogram(
        "molt_client_request_seconds", "From the view to the answer", ["entry"], buckets=BUCKETS
    )
    _fallbacks = prometheus.Counter(
        "molt_client_fallbacks", "Times that the view's own code ran instead", ["entry", "outcome"]
    )
    _shadow = prometheus.Counter("molt_client_shadow", "Comparisons of a view with the worker", ["entry", "result"])
    _resends = prometheus.Counter("molt_client_resends", "Requests that lost their worker", ["kind"])
    _admissions = prometheus.Counter(
        "molt_client_admissions", "Requests before Django, and how they came in", ["result"]
    )
    _breaker = prometheus.Gauge(
        "molt_client_breaker_open", "Processes whose circuit breaker is open", multiprocess_mode="livesum"
    )

AT_ONCE, WAITED, REFUSED = "at_once", "waited", "refused"
_KINDS = ("moved", "again", "refused")
_seen: WeakKeyDictionary[Any, dict[str, int]] = WeakKeyDictionary()
_lock = Lock()


def _forked() -> None:
    """In a forked child: another thread of the parent may have held the lock, and nobody is left to give it back."""
    global _lock
    _lock = Lock()


os.register_at_fork(after_in_child=_forked)


def answered(entry: str, client: Any, resent: bool, began: float) -> None:
    """A request had an answer; `began` is when its view began, by perf_counter."""
    if prometheus is not None:
        _requests.labels(entry, "ok").inc()
        _seconds.labels(entry).observe(perf_counter() - began)
        if resent:
            _count_resends(client)


def failed(entry: str, client: Any, error: MoltError, began: float) -> None:
    """A request ended otherwise."""
    if prometheus is not None:
        _requests.labels(entry, error.outcome).inc()
        _seconds.labels(entry).observe(perf_counter() - began)
        _count_resends(client)


def fell_back(error: MoltError, entry: str) -> None:
    """The view's own code runs instead."""
    if prometheus is not None:
        _fallbacks.labels(entry, error.outcome).inc()


def admitted(result: str) -> None:
    """`admission` let a request in, at once or after a while, or refused it."""
    if prometheus is not None:
        _admissions.labels(result).inc()


def compared(entry: str, result: str) -> None:
    """A view and the worker agreed, differed, the worker failed, or there was no comparing."""
    if prometheus is not None:
        _shadow.labels(entry, result).inc()


def breaker(state: str) -> None:
    """This process's circuit breaker opened or closed."""
    if prometheus is not None:
        _breaker.set(0 if state == CLOSED else 1)


def view(request: HttpRequest) -> HttpResponse:
    """Everything in the registry, for a scraper: `path("metrics/", view)`, behind whatever keeps others out."""
    if prometheus is None:
        return HttpResponse("hint: pip install 'molt_accel[prometheus]'\n", status=501, content_type="text/plain")
    registry = prometheus.REGISTRY
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        from prometheus_client import multiprocess

        registry = prometheus.CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)
    return HttpResponse(prometheus.generate_latest(registry), content_type=prometheus.CONTENT_TYPE_LATEST)


def _count_resends(client: Any) -> None:
    """The library counts by itself; what has come since the last look is added. Nothing comes where nothing fails."""
    retries = getattr(client, "retries", None)  # tests' stand-ins have none
    if retries is None:
        return
    with _lock:
        now, before = retries(), _seen.get(client, {})
        _seen[client] = now
    for kind in _KINDS:
        # In a forked child the library begins anew.
        more = now[kind] - before.get(kind, 0) if now["sent"] >= before.get("sent", 0) else now[kind]
        if more:
            _resends.labels(kind).inc(more)
