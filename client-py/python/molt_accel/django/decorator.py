"""`@molt_offload`: the whole view is an entry; its own code runs only as the fallback."""

from __future__ import annotations

import sys
from asyncio import CancelledError
from collections.abc import Callable
from contextlib import suppress
from functools import partial, update_wrapper, wraps
from inspect import isclass, iscoroutinefunction, ismethod, signature
from typing import Any, TypeVar, cast

from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest
from django.utils.decorators import method_decorator
from django.views import View as ClassView

from .. import codecs
from ..errors import MoltError
from . import answers, settings, switch, timing
from .body import lift_limit
from .offload import Params, Payload, Plan, Response, arun, plain, run
from .trial import Trial, acompare, compare

View = TypeVar("View", bound=Callable[..., Any])

views: dict[str, set[str]] = {}
"""Every entry that a decorator names, with the views that it replaces: what the system checks look at."""


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
    percent: float | None = None,
    shadow: float | None = None,
) -> Callable[[View], View]:
    """Replaces a view, sync or async, by `entry`; the arguments are those of `offload`.

    Put it innermost, below every other decorator: it replaces what it decorates, authentication included.
    fallback: the view's own code runs when the worker is unavailable, and when it died while an idempotent entry ran;
    never when it is busy or late, since that would feed an overload.
    percent: the share of requests that the worker answers; the view's own code answers the others.
    shadow: the share (0.01: one in a hundred) of the requests answered by the view's own code that the worker gets as
    well, for comparison: where the answers differ, the logger `molt_accel.shadow` has a diff. It runs the entry too, so
    it suits entries that only compute. Without `percent` the view answers everything.
    """
    plan = Plan(entry, codecs.number(codec), timeout, params, payload, response, idempotent, fallback)
    trial = Trial(percent, shadow)
    caller = sys._getframe(1)
    written_at = f"{caller.f_globals.get('__name__')}, line {caller.f_lineno}"
    bound: dict[tuple[Any, type], Callable[..., Any]] = {}  # what serves the methods that were looked at before

    def decorate(view: View) -> View:
        method = _bound_method(view)
        key = None if method is None else (method.__func__, type(method.__self__))
        if key in bound:  # Django's method_decorator decorates again for every request
            return cast(View, update_wrapper(partial(bound[key], plan, trial, view), view))
        _refuse_wrapped(view, entry)
        is_async = iscoroutinefunction(view)
        if key is not None:
            bound[key] = _aserve if is_async else _serve
        if is_async:

            @wraps(view)
            async def offloaded(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
                return await _aserve(plan, trial, view, request, *args, **kwargs)

        else:

            @wraps(view)
            def offloaded(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
                return _serve(plan, trial, view, request, *args, **kwargs)

        # Frameworks that go by annotations (ninja) look names up where the function was written, and that is here.
        with suppress(NameError, AttributeError):  # a name for type checkers alone
            offloaded.__signature__ = signature(view, eval_str=True)  # type: ignore[attr-defined]
        offloaded.molt_entry = entry  # type: ignore[attr-defined]
        if view.__module__ == method_decorator.__module__:  # the dummy that it decorates at import, in a method's place
            views.setdefault(entry, set()).add(written_at)
        elif method is None:
            views.setdefault(entry, set()).add(f"{view.__module__}.{view.__qualname__}")
        return cast(View, offloaded)

    return decorate


def _serve(plan: Plan, trial: Trial, view: Callable[..., Any], /, request: HttpRequest, *args: Any, **kw: Any) -> Any:
    """Answers one request: by the worker, by the view, or by the one in the other's place."""
    _require_request(request, view)
    reason, clock = _own_code(trial), timing.Clock()
    if reason is None:
        try:
            return run(request, plan, (args, kw), clock)
        except MoltError as error:
            if not plan.falls_back(error):
                return answers.failure(plain(request), error, plan.entry, clock)
            reason = answers.fallback(plain(request), error)
    elif reason == SHARE and trial.compares(plain(request), plan.entry):
        own = view(request, *args, **kw)
        compare(request, plan, (args, kw), own, clock.began)
        return timing.own_code(own, "shadow")
    _lift_limit(request, trial)
    return timing.own_code(view(request, *args, **kw), reason)


async def _aserve(
    plan: Plan, trial: Trial, view: Callable[..., Any], /, request: HttpRequest, *args: Any, **kw: Any
) -> Any:
    """`_serve` for async views."""
    _require_request(request, view)
    reason, clock = _own_code(trial), timing.Clock()
    if reason is None:
        try:
            return await arun(request, plan, (args, kw), clock)
        except MoltError as error:
            if not plan.falls_back(error):
                return await answers.afailure(plain(request), error, plan.entry, clock)
            reason = await answers.afallback(plain(request), error)
        except CancelledError:
            await answers.abandoned(plain(request), plan.entry)
            raise
    elif reason == SHARE and trial.compares(plain(request), plan.entry):
        own = await view(request, *args, **kw)
        await acompare(request, plan, (args, kw), own, clock.began)
        return timing.own_code(own, "shadow")
    _lift_limit(request, trial)
    return timing.own_code(await view(request, *args, **kw), reason)


SHARE = "not in the share"
"""Why the view's own code answers a request that `percent=` or `shadow=` leaves to it."""


def _own_code(trial: Trial) -> str | None:
    """Why the view's own code answers from the start; None: the worker does."""
    if switch.reason() is not None:
        return "switched off"
    return None if trial.offloads() else SHARE


def _lift_limit(request: Any, trial: Trial) -> None:
    """The view's own code in the worker's place takes what the worker would have. A view that is only shadowed is never
    in its place: it stays as it was."""
    if trial.percent:
        lift_limit(plain(request), settings.read().MAX_BODY)


def _bound_method(view: Any) -> Any:
    """The method in what Django's method_decorator makes for one request; None of any other view."""
    return view.func if type(view) is partial and ismethod(view.func) else None


def _require_request(request: Any, view: Callable[..., Any]) -> None:
    if not isinstance(plain(request), HttpRequest):
        raise TypeError(
            f"@molt_offload around {view.__qualname__} was called with a {type(request).__name__} in place of the "
            "request. hint: in a class-based view, `return offload(request, entry=...)` inside the method, or "
            "@method_decorator(molt_offload(entry=...), name='post') on the class"
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
    whose = getattr(view, "__self__", None)  # of a method that Django's method_decorator has bound
    if isinstance(whose, ClassView) and view.__name__ == "dispatch":
        kinds = [kind for kind in type(whose).__mro__ if "dispatch" in vars(kind)]
        layers += [f"{kind.__module__}.{kind.__qualname__}.dispatch" for kind in kinds]
    return layers


def _layer_name(wrapper: Any) -> str:
    """`functools.wraps` gives a wrapper its view's name; its code still knows where it was written."""
    code = getattr(wrapper, "__code__", None)
    if code is None:
        return f"a {type(wrapper).__module__}.{type(wrapper).__qualname__}"
    name = code.co_qualname.split(".<locals>")[0]
    return f"{wrapper.__globals__.get('__name__', '?')}.{name}"
