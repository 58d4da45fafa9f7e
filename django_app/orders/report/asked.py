"""What a caller of the report asks for, checked once for all four endpoints."""

import re
from dataclasses import dataclass
from datetime import date

from django.http import HttpRequest

from orders.errors import OrderError
from orders.rules import TAX_RATES

REGIONS = tuple(TAX_RATES)
ISO_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


@dataclass(frozen=True)
class Asked:
    """The sales of one region, or of all, from the first day to the last."""

    region: str | None
    first: date
    last: date


def read(request: HttpRequest) -> Asked:
    """The query's `region` (none: all of them), `from` and `to`. Raises OrderError, which names the parameter."""
    region = _text(request, "region")
    if region is not None and region not in REGIONS:
        raise OrderError(f"region must be one of {', '.join(REGIONS)}, or be left out", None, "region")
    first, last = _day(request, "from"), _day(request, "to")
    if last < first:
        raise OrderError(f"to must not be before from, and {last} is before {first}", None, "to")
    return Asked(region, first, last)


def params(request: HttpRequest) -> dict[str, str | None]:
    """The same as the parameters of the SQL entry."""
    asked = read(request)
    return {"region": asked.region, "from": asked.first.isoformat(), "to": asked.last.isoformat()}


def _text(request: HttpRequest, name: str) -> str | None:
    values = request.GET.getlist(name)
    if len(values) > 1:
        raise OrderError(f"{name} is given {len(values)} times", None, name)
    return values[0] if values else None


def _day(request: HttpRequest, name: str) -> date:
    text = _text(request, name)
    if text is None:
        raise OrderError(f"{name} is missing: a day like 2025-03-01", None, name)
    try:
        if ISO_DATE.fullmatch(text):
            return date.fromisoformat(text)
    except ValueError:  # there is no such day
        pass
    raise OrderError(f"{name} must be a day like 2025-03-01", None, name)
