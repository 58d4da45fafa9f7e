"""Trying an entry beside the view that it is to replace: a share of the requests, or a silent comparison."""

from __future__ import annotations

import json
import logging
import math
import random
from time import perf_counter
from typing import Any

from django.http import HttpRequest
from django.http.response import HttpResponseBase

from ..errors import MoltError, MoltInvalidInput, MoltTimeout
from . import answers, metrics, settings, timing
from .body import has_body, keep
from .lines import quoted
from .offload import Plan, UrlArguments, arun, plain, run
from .signals import atell, shadow_differed, tell

logger = logging.getLogger("molt_accel.shadow")

SHORTEST_SECONDS = 0.05
"""What the worker gets at least in a comparison; else as long as the view itself took."""
LINES = 60
"""Of a difference, in the log."""
TOLERANCE = 1e-9
"""Relative: sums of floats depend on their order."""


class Trial:
    """How many of a view's requests go to the worker, and how many only for comparison."""

    __slots__ = ("percent", "shadow")

    def __init__(self, percent: float | None, shadow: float | None) -> None:
        if percent is not None and not 0 <= percent <= 100:
            raise ValueError(f"percent={percent!r}. hint: give a share of the requests, 0 to 100")
        if shadow is not None and not 0 <= shadow <= 1:
            raise ValueError(f"shadow={shadow!r}. hint: give a share of the requests, 0 to 1")
        # A view that is only shadowed answers everything itself.
        self.percent = percent if percent is not None else 0.0 if shadow is not None else 100.0
        self.shadow = shadow or 0.0

    def offloads(self) -> bool:
        """Whether this request is one of those that the worker answers."""
        return self.percent >= 100 or random.random() * 100 < self.percent

    def compares(self, request: HttpRequest, entry: str) -> bool:
        """Whether the worker gets this request too, and, if so, keeps its body for both."""
        if random.random() >= self.shadow:
            return False
        if has_body(request) and not keep(request, settings.read().MAX_BODY):
            metrics.compared(entry, "skipped")
            return False
        return True


def compare(request: HttpRequest, plan: Plan, url: UrlArguments, own: Any, began: float) -> None:
    """Sends to the worker what the view has answered with `own`, and logs where the two differ. Raises nothing."""
    try:
        offloaded = run(request, _limited(plan, began), url, timing.Clock())
        if found := _report(request, plan, own, offloaded):
            tell(shadow_differed, **found)
    except MoltError as error:
        if found := _failed(request, plan, own, error):
            tell(shadow_differed, **found)
    except Exception:  # what params=, payload= or response= raise would be a 500 in earnest; the view's answer stands
        logger.exception("%s %s: shadowing %s failed", request.method, quoted(request.path), plan.entry)


async def acompare(request: HttpRequest, plan: Plan, url: UrlArguments, own: Any, began: float) -> None:
    """`compare` for async views."""
    try:
        offloaded = await arun(request, _limited(plan, began), url, timing.Clock())
        if found := _report(request, plan, own, offloaded):
            await atell(shadow_differed, **found)
    except MoltError as error:
        if found := _failed(request, plan, own, error):
            await atell(shadow_differed, **found)
    except Exception:
        logger.exception("%s %s: shadowing %s failed", request.method, quoted(request.path), plan.entry)


def difference(own: Any, offloaded: Any) -> str | None:
    """Where two HTTP answers differ, as a diff; None where they agree."""
    if not isinstance(own, HttpResponseBase) or own.streaming or not getattr(own, "is_rendered", True):
        return None  # nothing to hold against each other
    lines = []
    if own.status_code != offloaded.status_code:
        lines += [f"- status {own.status_code}", f"+ status {offloaded.status_code}"]
    left, right = _decoded(own), _decoded(offloaded)
    if not _agree(left, right):
        import difflib

        lines += difflib.unified_diff(_lines(left), _lines(right), "view", "worker", lineterm="", n=1)
    if not lines:
        return None
    return "\n".join(lines[:LINES] + ([f"({len(lines) - LINES} lines more)"] if len(lines) > LINES else []))


def _limited(plan: Plan, began: float) -> Plan:
    """Nobody waits longer for a comparison than for the view: a worker that hangs may not cost the site its time."""
    seconds = max(SHORTEST_SECONDS, perf_counter() - began)
    return plan._replace(timeout=seconds if plan.timeout is None else min(seconds, plan.timeout), fallback=False)


Told = dict[str, Any]
"""What the signal `shadow_differed` says."""


def _report(request: HttpRequest, plan: Plan, own: Any, offloaded: HttpResponseBase) -> Told | None:
    """Counts the comparison and logs a difference; what is to be told of it."""
    found = difference(own, offloaded)
    metrics.compared(plan.entry, "agreed" if found is None else "differed")
    if found is None:
        return None
    logger.warning(
        "%s %s: the view and %s differ:\n%s",
        request.method,
        quoted(request.path),
        plan.entry,
        found,
        extra={"request": request, "entry": plan.entry},
    )
    return {"sender": plan.entry, "request": request, "entry": plan.entry, "difference": found}


def _failed(request: HttpRequest, plan: Plan, own: Any, error: MoltError) -> Told | None:
    """The worker has no answer to compare, unless its refusal is one: the view may refuse it as well."""
    if isinstance(error, MoltInvalidInput):
        return _report(request, plan, own, answers.worded(plain(request), error, answers.status_of(error)))
    metrics.compared(plan.entry, "failed")
    what = "slower than the view" if isinstance(error, MoltTimeout) else f"{error.outcome} where the view answered"
    logger.warning(
        "%s %s: shadowing %s: %s: %s",
        request.method,
        quoted(request.path),
        plan.entry,
        what,
        quoted(error),
        extra={"request": request, "entry": plan.entry, "outcome": error.outcome},
    )
    return None


def _decoded(response: Any) -> Any:
    content = response.content
    if response.headers.get("Content-Type", "").split(";")[0].strip() == "application/json":
        try:
            return json.loads(content)
        except ValueError:
            return content
    return content


def _lines(value: Any) -> list[str]:
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace").splitlines()
    return json.dumps(value, indent=1, sort_keys=True).splitlines()


def _agree(left: Any, right: Any) -> bool:
    if isinstance(left, float) or isinstance(right, float):
        numbers = all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in (left, right))
        return numbers and (math.isclose(left, right, rel_tol=TOLERANCE) or (left != left and right != right))
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(_agree(value, right[key]) for key, value in left.items())
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(_agree, left, right))
    return type(left) is type(right) and left == right
