"""`@molt_offload`: the whole view is an entry; its own code runs only as the fallback."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, wraps
from inspect import isclass, iscoroutinefunction
from typing import Any, TypeVar, cast

from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest

from .. import codecs
from ..errors import MoltError
from . import answers
from .offload import Params, Payload, Plan, Response, arun, run

View = TypeVar("View", bound=Callable[..., Any])


def molt_offload(
    entry: str,
    codec: str = "json",
    timeout: float | None = None,
    fallback: bool = False,
    payload: Payload | None = None,
    params: Params | None = None,
    response: Response | None = None,
    *,
    idempotent: bool | None = None,
) -> Callable[[View], View]:
    """Replaces a view, sync or async, by `entry`; the arguments are those of `offload`.

    Put it innermost, below every other decorator: it replaces what it decorates, authentication included.
    fallback: the view's own code runs when the worker is unavailable, and when it died while an idempotent entry ran;
    never when it is busy or late, since that would feed an overload.
    """
    plan = Plan(entry, codecs.number(codec), timeout, params, payload, response, idempotent, fallback)

    def decorate(view: View) -> View:
        _refuse_wrapped(view, entry)
        if iscoroutinefunction(view):

            @wraps(view)
            async def offloaded(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
                _require_request(request, view)
                try:
                    return await arun(request, plan, (args, kwargs))
                except MoltError as error:
                    if not plan.falls_back(error):
                        return answers.failure(request, error)
                    _log_fallback(request, error)
                return await view(request, *args, **kwargs)

        else:

            @wraps(view)
            def offloaded(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
                _require_request(request, view)
                try:
                    return run(request, plan, (args, kwargs))
                except MoltError as error:
                    if not plan.falls_back(error):
                        return answers.failure(request, error)
                    _log_fallback(request, error)
                return view(request, *args, **kwargs)

        offloaded.molt_entry = entry  # type: ignore[attr-defined]
        return cast(View, offloaded)

    return decorate


def _log_fallback(request: HttpRequest, error: MoltError) -> None:
    answers.logger.warning(
        "%s %s: %s %s, the view runs instead: %s",
        request.method,
        request.path,
        error.entry or "molt",
        error.outcome,
        error,
        extra={"request": request, "entry": error.entry, "outcome": error.outcome, "fallback": True},
    )


def _require_request(request: Any, view: Callable[..., Any]) -> None:
    if not isinstance(request, HttpRequest):
        raise TypeError(
            f"@molt_offload around {view.__qualname__} was called with a {type(request).__name__} in place of the "
            "request. hint: in a class-based view, `return offload(request, entry=...)` inside the method"
        )


def _refuse_wrapped(view: Any, entry: str) -> None:
    """A view that is already wrapped would lose its wrappers, authentication among them."""
    layers = _layers(view)
    if layers:
        raise ImproperlyConfigured(
            f"@molt_offload(entry={entry!r}) replaces what it decorates, and would skip {', '.join(layers)}. "
            "hint: put it innermost, right above the view's own `def`, or call offload() inside the view"
        )


def _layers(view: Any) -> list[str]:
    if isclass(view):
        return [f"the class {view.__module__}.{view.__qualname__}"]
    layers = []
    for attribute in ("view_class", "cls"):  # Django's as_view(), Django REST framework's @api_view and as_view()
        kind = getattr(view, attribute, None)
        if kind is not None:
            layers.append(f"the dispatch of {kind.__module__}.{kind.__qualname__}")
            break
    while isinstance(view, partial) or hasattr(view, "__wrapped__"):
        if isinstance(view, partial):  # adds arguments, checks nothing
            view = view.func
        else:
            layers.append(_layer_name(view))
            view = view.__wrapped__
    return layers


def _layer_name(wrapper: Any) -> str:
    """`functools.wraps` gives a wrapper its view's name; its code still knows where it was written."""
    code = getattr(wrapper, "__code__", None)
    if code is None:
        return f"a {type(wrapper).__module__}.{type(wrapper).__qualname__}"
    name = code.co_qualname.split(".<locals>")[0]
    return f"{wrapper.__globals__.get('__name__', '?')}.{name}"
