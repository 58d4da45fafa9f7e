"""Models with a field of every kind, for tables from the database."""

from __future__ import annotations

from django.db import models
from django.db.models import Count, QuerySet, Sum


class Customer(models.Model):
    id = models.UUIDField(primary_key=True)
    name = models.CharField(max_length=40)

    class Meta:
        app_label = "site_shop"


class Order(models.Model):
    customer = models.ForeignKey(Customer, models.CASCADE)
    amount = models.DecimalField(max_digits=12, decimal_places=2)
    placed = models.DateTimeField()
    day = models.DateField(null=True)
    at = models.TimeField(null=True)
    took = models.DurationField(null=True)
    paid = models.BooleanField(null=True)
    pieces = models.PositiveSmallIntegerField(default=1)
    visits = models.BigIntegerField(default=0)
    weight = models.FloatField(null=True)
    note = models.TextField(null=True)
    tags = models.JSONField(null=True)
    seal = models.BinaryField(null=True)
    address = models.GenericIPAddressField(null=True)

    class Meta:
        app_label = "site_shop"
        ordering = ("id",)


def large_orders() -> QuerySet[Order]:
    return Order.objects.filter(amount__gte=100)


def by_customer() -> QuerySet[Order]:
    totals = Order.objects.order_by("customer__name").values("customer__name")
    return totals.annotate(orders=Count("id"), visits_all=Sum("visits"))  # type: ignore[return-value]


def broken() -> QuerySet[Order]:
    raise RuntimeError("the database is on fire")


no_queryset = 5
