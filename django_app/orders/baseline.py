"""The order summary as a good Django developer writes it today: `json` and `Decimal`."""

from __future__ import annotations

import re
from collections import defaultdict
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any

from orders import strict_json
from orders.errors import OrderError
from orders.rules import (
    BAD_MIN_AMOUNT,
    FIELD_FAULTS,
    MAX_MIN_AMOUNT,
    MAX_PRICE,
    MAX_QTY,
    NO_ORDERS,
    NOT_A_LINE,
    NOT_AN_OBJECT,
    TAX_RATES,
    TIERS,
    TOP_CUSTOMERS,
)

CENT = Decimal("0.01")
ZERO = Decimal("0.00")
#: (from this many pieces, share that is left to pay), the highest first.
FACTORS = tuple((pieces, 1 - rebate) for pieces, rebate in TIERS)
is_price = re.compile(r"[0-9]+(?:\.[0-9]{1,2})?").fullmatch
is_discount = re.compile(r"[0-9]+(?:\.[0-9]{1,4})?").fullmatch


def summarize(body: bytes) -> dict[str, Any]:
    """The summary of a JSON body, by the rules in `orders.rules`. Raises OrderError."""
    request = strict_json.loads(body)
    if not isinstance(request, dict):
        raise OrderError(NOT_AN_OBJECT)
    orders = request.get("orders")
    if not isinstance(orders, list):
        raise OrderError(NO_ORDERS, field="orders")
    min_amount = read_min_amount(request.get("min_amount", 0))

    regions = defaultdict(list)
    customers = defaultdict(Decimal)
    for index, line in enumerate(orders):
        region, customer, net, tax = read_line(index, line)
        if net >= min_amount:
            regions[region].append((net, tax))
            customers[customer] += net + tax

    rows = [region_row(region, regions[region]) for region in sorted(regions)]
    top = sorted(customers.items(), key=lambda item: (-item[1], item[0]))[:TOP_CUSTOMERS]
    net = sum((row["net"] for row in rows), ZERO)
    tax = sum((row["tax"] for row in rows), ZERO)
    count = sum(row["count"] for row in rows)
    return {
        "regions": [{key: str(v) if isinstance(v, Decimal) else v for key, v in row.items()} for row in rows],
        "top_customers": [{"customer": customer, "gross": str(gross)} for customer, gross in top],
        "totals": {"lines": len(orders), "count": count, "net": str(net), "tax": str(tax), "gross": str(net + tax)},
    }


def read_min_amount(value: Any) -> Decimal:
    if type(value) in (int, float) and 0 <= value <= MAX_MIN_AMOUNT:
        cents = round(value * 100)
        if cents / 100 == value:
            return Decimal(cents) / 100
    raise OrderError(BAD_MIN_AMOUNT, field="min_amount")


def read_line(index: int, line: Any) -> tuple[str, str, Decimal, Decimal]:
    """Region, customer, net and tax of one line."""
    if not isinstance(line, dict):
        raise OrderError(NOT_A_LINE, index)
    qty = line.get("qty")
    if type(qty) is not int or not 1 <= qty <= MAX_QTY:
        raise OrderError(FIELD_FAULTS["qty"], index, "qty")
    region = line.get("region")
    if not isinstance(region, str) or region not in TAX_RATES:
        raise OrderError(FIELD_FAULTS["region"], index, "region")
    customer = line.get("customer")
    if not isinstance(customer, str) or not customer:
        raise OrderError(FIELD_FAULTS["customer"], index, "customer")
    price = line.get("price")
    if not isinstance(price, str) or not is_price(price) or not 0 < (price := Decimal(price)) < MAX_PRICE:
        raise OrderError(FIELD_FAULTS["price"], index, "price")
    discount = line.get("discount")
    if not isinstance(discount, str) or not is_discount(discount) or (discount := Decimal(discount)) >= 1:
        raise OrderError(FIELD_FAULTS["discount"], index, "discount")

    net = price * qty * (1 - discount)
    for pieces, factor in FACTORS:
        if qty >= pieces:
            net *= factor
            break
    net = net.quantize(CENT, ROUND_HALF_EVEN)
    tax = (net * TAX_RATES[region]).quantize(CENT, ROUND_HALF_EVEN)
    return region, customer, net, tax


def region_row(region: str, lines: list[tuple[Decimal, Decimal]]) -> dict[str, Any]:
    count = len(lines)
    amounts = sorted(net + tax for net, tax in lines)
    net = sum(net for net, _ in lines)
    tax = sum(tax for _, tax in lines)
    return {
        "region": region,
        "count": count,
        "net": net,
        "tax": tax,
        "gross": net + tax,
        "mean": ((net + tax) / count).quantize(CENT, ROUND_HALF_EVEN),
        "p50": amounts[count // 2],
        "p95": amounts[int(count * 0.95)],
        "max": amounts[-1],
    }
