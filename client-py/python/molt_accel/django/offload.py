"""`offload` and `aoffload`: the rest of a view, done by an entry of the worker."""

from __future__ import annotations

from asyncio import CancelledError
from collections.abc import Awaitable, Callable, Mapping, Sequence
from inspect import isawaitable
from typing import Any, NamedTuple

from django.http import HttpRequest
from django.http.response import HttpResponseBase

from .. import codecs
from ..answer import Answer
from ..client import Client
from ..deadline import Deadline
from ..errors import MoltError, MoltInternalError, MoltInvalidInput, MoltUnavailable, MoltWorkerLost
from . import answers, hangup, metrics, settings, skew, timing, tracing
from .body import Body, has_body, in_arena, read
from .clients import client

Params = Mapping[str, Any] | Callable[[HttpRequest], Mapping[str, Any] | Awaitable[Mapping[str, Any]]]
Payload = Any | Callable[[HttpRequest], Any]
Response = Callable[[HttpRequest, Any], Any]
UrlArguments = tuple[Sequence[Any], Mapping[str, Any]]


class Plan(NamedTuple):
    """What a view hands over, and how: the arguments of `offload`, checked."""

    entry: str
    codec: int
    timeout: float | None
    params: Params | None
    payload: Payload | None
    response: Response | None
    idempotent: bool | None
    fallback: bool = False

    def falls_back(self, error: MoltError) -> bool:
        """Whether the view's own code runs instead: never where that would feed an overload or do the work twice."""
        if not self.fallback:
            return False
        if isinstance(error, MoltUnavailable):
            return True
        if not isinstance(error, MoltWorkerLost):
            return False
        by_manifest = isinstance(error.details, dict) and bool(error.details.get("idempotent"))
        return by_manifest if self.idempotent is None else self.idempotent


def offload(
    request: HttpRequest,
    *,
    entry: str,
    codec: str = "json",
    timeout: float | None = None,
    params: Params | None = None,
    payload: Payload | None = None,
    response: Response | None = None,
    idempotent: bool | None = None,
) -> HttpResponseBase:
    """Answers `request` by `entry`. Call it after whatever the view checks: `return offload(request, entry=...)`.

    The request's body goes over untouched; for methods without one, query parameters and URL arguments as one object.
    codec: what the body is in where the Content-Type does not say. timeout: seconds. params: what the server vouches
    for, a mapping or `callable(request)`; it wins over anything of that name in the body. payload: an object, or
    `callable(request)`, to send instead of the body. response: `callable(request, answer)` shapes the decoded answer
    into an HttpResponse or an object for JSON; else the worker's bytes are the answer. idempotent: as in `Client.call`.
    Every outcome becomes an HTTP answer (see docs: 400, 413, 502, 503, 504, ...); nothing is raised.
    """
    plan, clock = Plan(entry, codecs.number(codec), timeout, params, payload, response, idempotent), timing.Clock()
    try:
        return run(request, plan, None, clock)
    except MoltError as error:
        return answers.failure(plain(request), error, entry, clock)


async def aoffload(
    request: HttpRequest,
    *,
    entry: str,
    codec: str = "json",
    timeout: float | None = None,
    params: Params | None = None,
    payload: Payload | None = None,
    response: Response | None = None,
    idempotent: bool | None = None,
) -> HttpResponseBase:
    """`offload` for async views; `params`, `payload` and `response` may be coroutine functions."""
    plan, clock = Plan(entry, codecs.number(codec), timeout, params, payload, response, idempotent), timing.Clock()
    try:
        return await arun(request, plan, None, clock)
    except MoltError as error:
        return await answers.afailure(plain(request), error, entry, clock)
    except CancelledError:
        await answers.abandoned(plain(request), entry)
        raise


def run(request: HttpRequest, plan: Plan, url: UrlArguments | None, clock: timing.Clock) -> HttpResponseBase:
    """`offload`, with any other outcome raised. `url`: the view's arguments, if not those that the URL resolved to."""
    params: Any = plan.params(request) if callable(plan.params) else plan.params
    given = plan.payload(request) if callable(plan.payload) else plan.payload
    molt = client()
    try:
        answer = _exchange(plain(request), plan, molt, given, params, url, clock)
    except MoltError as error:
        error.entry = error.entry or plan.entry  # where nobody was there to be asked for one
        metrics.failed(plan.entry, molt, error, clock.began)
        raise
    metrics.answered(plan.entry, molt, answer.metrics.resent, clock.began)
    skew.look(molt)
    return answers.success(request, plan.entry, answer, plan.response, clock)


def _exchange(
    http: HttpRequest,
    plan: Plan,
    molt: Client,
    given: Any,
    params: Any,
    url: UrlArguments | None,
    clock: timing.Clock,
) -> Answer:
    gone = hangup.watch(http)
    deadline = molt.deadline(plan.timeout, plan.entry, gone)
    codec, body = _placed(http, plan, molt, given, url, clock, deadline)
    began = timing.now()
    try:
        with tracing.request(plan.entry) as span:
            answer = molt.exchange(
                plan.entry, body.payload, codec, _accept(http, plan), deadline, params, plan.idempotent, gone
            )
            clock.exchanging = timing.now() - began
            span.answered(answer.metrics)
            return answer
    except MoltError as error:
        if plan.falls_back(error):
            body.restore()
        raise _refused(error, params) from None
    finally:
        body.free()


async def arun(request: HttpRequest, plan: Plan, url: UrlArguments | None, clock: timing.Clock) -> HttpResponseBase:
    """`run` for async views."""
    params = await _value(plan.params(request)) if callable(plan.params) else plan.params
    given = await _value(plan.payload(request)) if callable(plan.payload) else plan.payload
    molt = client()
    try:
        answer = await _aexchange(plain(request), plan, molt, given, params, url, clock)
    except MoltError as error:
        error.entry = error.entry or plan.entry  # where nobody was there to be asked for one
        metrics.failed(plan.entry, molt, error, clock.began)
        raise
    except CancelledError:
        metrics.failed(plan.entry, molt, answers.cancelled(plan.entry), clock.began)
        raise
    metrics.answered(plan.entry, molt, answer.metrics.resent, clock.began)
    skew.look(molt)
    if plan.response is None:
        return answers.success(request, plan.entry, answer, None, clock)
    shaped = await _value(plan.response(request, codecs.decode(answer.codec, answer.body)))
    return answers.shaped(shaped, plan.entry, answer, clock)


async def _aexchange(
    http: HttpRequest,
    plan: Plan,
    molt: Client,
    given: Any,
    params: Any,
    url: UrlArguments | None,
    clock: timing.Clock,
) -> Answer:
    deadline = molt.deadline(plan.timeout, plan.entry)
    await molt.aattach(in_arena(http) if plan.payload is None else plan.codec == codecs.ARROW, deadline)
    codec, body = _placed(http, plan, molt, given, url, clock, deadline)
    began = timing.now()
    try:
        with tracing.request(plan.entry) as span:
            answer = await molt.aexchange(
                plan.entry, body.payload, codec, _accept(http, plan), deadline, params, plan.idempotent
            )
            clock.exchanging = timing.now() - began
            span.answered(answer.metrics)
            return answer
    except MoltError as error:
        if plan.falls_back(error):
            body.restore()
        raise _refused(error, params) from None
    finally:
        body.free()


def plain(request: Any) -> HttpRequest:
    """Django's own request: Django REST framework hands its views one that wraps it."""
    inner = getattr(request, "_request", None)
    return inner if isinstance(inner, HttpRequest) else request


def _placed(
    request: HttpRequest,
    plan: Plan,
    molt: Client,
    given: Any,
    url: UrlArguments | None,
    clock: timing.Clock,
    deadline: Deadline,
) -> tuple[int, Body]:
    """`_message`, and how long it took."""
    began = timing.now()
    try:
        return _message(request, plan, molt, given, url, deadline)
    finally:
        clock.copying = timing.now() - began


def _message(
    request: HttpRequest, plan: Plan, molt: Client, given: Any, url: UrlArguments | None, deadline: Deadline
) -> tuple[int, Body]:
    """The payload and its codec. No worker is noticed here, before the body is read, so that a fallback still can."""
    if plan.payload is not None:  # what it returns goes over, None as well: never the body in its place
        return plan.codec, _encoded(plan.codec, given, molt, deadline)
    molt.session(deadline)
    if not has_body(request):
        codec = plan.codec if plan.codec in (codecs.JSON, codecs.MSGPACK) else codecs.JSON
        return codec, _encoded(codec, _arguments(request, url), molt, deadline)
    return answers.codec_of_body(request, plan.codec), read(request, molt, settings.read().MAX_BODY, deadline)


def _encoded(codec: int, given: Any, molt: Client, deadline: Deadline) -> Body:
    try:
        return Body(molt.place(given, deadline) if codec == codecs.ARROW else codecs.encode(codec, given))
    except MoltInvalidInput as reason:
        raise _of_our_own(reason) from None


def _refused(error: MoltError, params: Any) -> MoltError:
    """The error, unless it is about `params`, which were refused before anything was sent."""
    if isinstance(error, MoltInvalidInput) and params:
        try:
            codecs.pack(params, "params")
        except MoltInvalidInput as reason:
            return _of_our_own(reason)
    return error


def _of_our_own(reason: MoltInvalidInput) -> MoltInternalError:
    """What this project made cannot be encoded: no HTTP client can help that, nor need it know the types."""
    return MoltInternalError(reason.message)


def _arguments(request: HttpRequest, url: UrlArguments | None) -> dict[str, Any]:
    """Query parameters (a repeated one as a list) and URL arguments as one object. The URL's own names win."""
    arguments: dict[str, Any] = {
        name: values[0] if len(values) == 1 else values for name, values in request.GET.lists()
    }
    if url is None and request.resolver_match is not None:
        url = request.resolver_match.args, request.resolver_match.kwargs
    if url is not None:
        unnamed, named = url
        if unnamed:
            arguments["args"] = unnamed
        arguments.update(named)
    return arguments


def _accept(request: HttpRequest, plan: Plan) -> int:
    if plan.codec == codecs.RAW:
        return codecs.RAW
    return codecs.MSGPACK if plan.response is not None else answers.codec_of_answer(request)


async def _value(result: Any) -> Any:
    return await result if isawaitable(result) else result
