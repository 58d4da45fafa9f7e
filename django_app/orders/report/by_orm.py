"""The report by the Django ORM, as one writes it today: SQLite, or a PostgreSQL (see `demo.database`)."""

from decimal import Decimal
from typing import Any

from django.db import connections
from django.db.models import Count, F, Func, Sum, Window

from orders.models import OrderLine
from orders.report import COLUMNS, TOP, files
from orders.report.asked import Asked


class Running(Func):
    """The sum of sums, which Django's own Sum refuses."""

    function = "SUM"
    window_compatible = True


def report(asked: Asked) -> list[dict[str, Any]]:
    """What `orders.report` describes, from three queries."""
    if connections[files.DATABASE].vendor == "sqlite":
        files.need(files.database_path())
    sold = OrderLine.objects.using(files.DATABASE).filter(day__range=(asked.first, asked.last))
    if asked.region is not None:
        sold = sold.filter(customer__region=asked.region)
    sums = {"lines": Count("id"), "pieces": Sum("qty"), "net": Sum("net_cents")}
    days = sold.values("day", "category").annotate(**sums)
    days = days.annotate(running=Window(Running("net"), partition_by=F("category"), order_by=F("day").asc()))
    by_customer = sold.values("customer", name=F("customer__name")).annotate(**sums)
    by_day = sold.values("day").annotate(**sums)
    return [
        *(_row("days", found) for found in days.order_by("day", "category")),
        *(_row("top_customers", found) for found in by_customer.order_by("-net", "customer")[:TOP]),
        *(_row("top_days", found) for found in by_day.order_by("-net", "day")[:TOP]),
    ]


def _row(part: str, found: dict[str, Any]) -> dict[str, Any]:
    row = dict.fromkeys(COLUMNS) | found | {"part": part, "net": _money(found["net"])}
    if "running" in found:
        row["running"] = _money(found["running"])
    return row


def _money(cents: int) -> Decimal:
    return Decimal(cents).scaleb(-2)
