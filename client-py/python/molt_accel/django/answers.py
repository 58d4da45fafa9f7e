"""HTTP: which codec the client sent, which it wants, and what it gets back."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from typing import Any

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.http.response import HttpResponseBase

from .. import codecs
from ..answer import Answer
from ..errors import MoltBusy, MoltCancelled, MoltError, MoltInvalidInput, MoltTooLarge
from . import metrics, settings, signals, timing
from .body import discard
from .lines import quoted

logger = logging.getLogger("molt_accel.request")

CONTENT_TYPES: Mapping[int, str] = {
    codecs.JSON: "application/json",
    codecs.MSGPACK: "application/msgpack",
    codecs.ARROW: "application/vnd.apache.arrow.stream",
    codecs.RAW: "application/octet-stream",
}
_CODECS: Mapping[str, int] = {
    "application/json": codecs.JSON,
    "application/msgpack": codecs.MSGPACK,
    "application/x-msgpack": codecs.MSGPACK,
    "application/vnd.msgpack": codecs.MSGPACK,
    "application/vnd.apache.arrow.stream": codecs.ARROW,
}
_OFFERED = list(_CODECS)  # in order of preference where the client has none
_ACCEPTS_KEPT = 256
_accepts: dict[str, int] = {"": codecs.JSON, "*/*": codecs.JSON, "application/json": codecs.JSON}

# What an HTTP client reads of outcomes that are none of its business; the log has the whole message.
_SENTENCES: Mapping[str, str] = {
    "unknown_entry": "This endpoint is not available.",
    "too_large": "The request body is too large.",
    "cancelled": "The request was cancelled.",
    "busy": "The service is busy. Try again later.",
    "timeout": "The service did not answer in time.",
    "unavailable": "The service is unavailable.",
    "worker_lost": "The service failed while it handled the request.",
}
_FAILED = "The service failed to handle the request."


def codec_of_body(request: HttpRequest, default: int) -> int:
    """The codec that the Content-Type names; `default` for types that molt does not know."""
    return _CODECS.get(request.content_type or "", default)


def codec_of_answer(request: HttpRequest) -> int:
    """The codec that the Accept header prefers; JSON where it prefers none that molt speaks."""
    accept = request.META.get("HTTP_ACCEPT", "")
    known = _accepts.get(accept)
    if known is None:
        known = _CODECS.get(request.get_preferred_type(_OFFERED) or "", codecs.JSON)
        if len(_accepts) < _ACCEPTS_KEPT:  # browsers and programs send few different ones; an attacker any number
            _accepts[accept] = known
    return known


def success(
    request: HttpRequest,
    entry: str,
    answer: Answer,
    shape: Callable[[HttpRequest, Any], Any] | None,
    clock: timing.Clock,
) -> HttpResponseBase:
    """The HTTP answer: the worker's bytes, or what `shape(request, decoded)` makes of them. `.molt` has the metrics."""
    if shape is None:
        response = HttpResponse(answer.body, content_type=CONTENT_TYPES[answer.codec])
        if answer.codec != codecs.RAW:  # which it is was for the Accept header to say: a cache must know
            response.headers["Vary"] = "Accept"
        return _measured(response, entry, answer, clock)
    return shaped(shape(request, codecs.decode(answer.codec, answer.body)), entry, answer, clock)


def shaped(result: Any, entry: str, answer: Answer, clock: timing.Clock) -> HttpResponseBase:
    """What `response=` returned, as an HTTP answer."""
    response = result if isinstance(result, HttpResponseBase) else JsonResponse(result, safe=False)
    return _measured(response, entry, answer, clock)


def _measured(response: HttpResponseBase, entry: str, answer: Answer, clock: timing.Clock) -> HttpResponseBase:
    response.molt = answer.metrics  # type: ignore[attr-defined]
    timing.offloaded(response, entry, clock, answer.metrics)
    return response


def failure(request: HttpRequest, error: MoltError, entry: str, clock: timing.Clock) -> HttpResponse:
    """The HTTP answer for an outcome other than ok, its line in the log and its signal."""
    status = _log_failure(request, error)
    signals.tell(signals.request_failed, sender=error.entry, request=request, error=error, status=status)
    return _failed(request, error, status, entry, clock)


async def afailure(request: HttpRequest, error: MoltError, entry: str, clock: timing.Clock) -> HttpResponse:
    """`failure` for async views."""
    status = _log_failure(request, error)
    await signals.atell(signals.request_failed, sender=error.entry, request=request, error=error, status=status)
    return _failed(request, error, status, entry, clock)


async def abandoned(request: HttpRequest, entry: str) -> None:
    """Logs and signals that an async view was cancelled while it waited; there is nobody to answer."""
    error = cancelled(entry)
    status = _log_failure(request, error)
    await signals.atell(signals.request_failed, sender=entry, request=request, error=error, status=status)


def cancelled(entry: str) -> MoltCancelled:
    """The outcome of a request whose async view was cancelled: what asyncio raises there is no MoltError."""
    return MoltCancelled("the view was cancelled, as it is when its HTTP client hangs up", entry=entry)


def _log_failure(request: HttpRequest, error: MoltError) -> int:
    status = status_of(error)
    logger.log(
        logging.ERROR if status >= 500 and not isinstance(error, MoltBusy) else logging.INFO,
        "%s %s: %s %s: %s",
        request.method,
        quoted(request.path),
        error.entry or "molt",
        error.outcome,
        quoted(error),
        extra={"request": request, "status_code": status, "entry": error.entry, "outcome": error.outcome},
    )
    return status


def _failed(request: HttpRequest, error: MoltError, status: int, entry: str, clock: timing.Clock) -> HttpResponse:
    discard(request, settings.read().MAX_BODY)
    response = worded(request, error, status)
    timing.failed(response, entry, clock, error.outcome)
    return response


def worded(request: HttpRequest, error: MoltError, status: int) -> HttpResponse:
    """What the HTTP client reads of an outcome other than ok."""
    shape = settings.read().ERROR_RESPONSE
    response = shape(request, error, status) if callable(shape) else JsonResponse(_body(error), status=status)
    if error.retry_after is not None:
        response.headers["Retry-After"] = str(max(1, math.ceil(error.retry_after)))
    return response


def status_of(error: MoltError) -> int:
    """Its HTTP status."""
    return settings.read().BUSY_STATUS if isinstance(error, MoltBusy) else error.http_status


def fallback(request: HttpRequest, error: MoltError) -> str:
    """Logs and signals that the view's own code runs; returns why, in a word."""
    _log_fallback(request, error)
    signals.tell(signals.fell_back, sender=error.entry, request=request, error=error)
    return error.outcome


async def afallback(request: HttpRequest, error: MoltError) -> str:
    """`fallback` for async views."""
    _log_fallback(request, error)
    await signals.atell(signals.fell_back, sender=error.entry, request=request, error=error)
    return error.outcome


def _log_fallback(request: HttpRequest, error: MoltError) -> None:
    logger.warning(
        "%s %s: %s %s, the view runs instead: %s",
        request.method,
        quoted(request.path),
        error.entry or "molt",
        error.outcome,
        quoted(error),
        extra={"request": request, "entry": error.entry, "outcome": error.outcome, "fallback": True},
    )
    metrics.fell_back(error, error.entry or "molt")


def _body(error: MoltError) -> dict[str, Any]:
    if isinstance(error, MoltInvalidInput):
        return {"error": error.message, **_mapping(error.details)}
    if isinstance(error, MoltTooLarge):
        return {"error": _SENTENCES[error.outcome], **_mapping(error.details)}
    return {"error": _SENTENCES.get(error.outcome, _FAILED)}


def _mapping(details: Any) -> Mapping[str, Any]:
    if isinstance(details, dict):
        return {str(key): value for key, value in details.items()}
    return {} if details is None else {"details": details}
