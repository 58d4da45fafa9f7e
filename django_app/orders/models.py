"""The report's tables for the Django ORM, in the database "report". `orders.report.data` fills them."""

from django.db import models


class Customer(models.Model):
    """Who buys."""

    name = models.CharField(max_length=40)
    region = models.CharField(max_length=16)


class OrderLine(models.Model):
    """One line of an order. SQLite has no decimals and would add floats, so money is in whole cents."""

    day = models.DateField()
    customer = models.ForeignKey(Customer, on_delete=models.PROTECT, db_index=False)
    category = models.CharField(max_length=16)
    qty = models.SmallIntegerField()
    net_cents = models.BigIntegerField()

    class Meta:
        # The report asks for a span of days, and finds all that it needs in the index.
        indexes = (models.Index(fields=["day", "category", "customer", "qty", "net_cents"], name="order_line_by_day"),)
