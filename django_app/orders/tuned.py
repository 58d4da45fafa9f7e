"""The order summary as fast as Python alone can do it: msgspec's typed decoding, and money in whole cents."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from orders import baseline, strict_json
from orders.errors import OrderError
from orders.rules import MAX_MIN_AMOUNT, MAX_PRICE, MAX_QTY, TAX_RATES, TIERS, TOP_CUSTOMERS

MAX_CENTS = MAX_PRICE * 100
#: Tax of every region, in 1/10000.
TAX = {region: int(rate * 10_000) for region, rate in TAX_RATES.items()}
#: What is left to pay, in 1/100, by quantity.
(MANY, F_MANY), (SOME, F_SOME), (FEW, F_FEW) = ((pieces, 100 - int(rebate * 100)) for pieces, rebate in TIERS)

are_cents = re.compile(r"(?:[0-9]+\.[0-9][0-9],)*[0-9]+\.[0-9][0-9]").fullmatch


class Line(msgspec.Struct, gc=False):
    qty: int
    region: str
    customer: str
    price: str
    discount: str


class Request(msgspec.Struct, gc=False):
    orders: list[Line]
    min_amount: int | float = 0


decode = msgspec.json.Decoder(Request).decode


def summarize(body: bytes) -> dict[str, Any]:
    """The summary of a JSON body, by the rules in `orders.rules`. Raises OrderError."""
    try:
        request = decode(body.decode())
        strict_json.check_text(body, len(request.orders))
        return summary(request)
    except (msgspec.MsgspecError, LookupError, ValueError, RecursionError, OrderError):
        return baseline.summarize(body)  # which knows what is wrong, and where


def summary(request: Request) -> dict[str, Any]:
    """Raises a LookupError or ValueError for whatever the rules do not allow, without saying what."""
    if not 0 <= request.min_amount <= MAX_MIN_AMOUNT:
        raise ValueError
    min_cents = round(request.min_amount * 100)
    if min_cents / 100 != request.min_amount:
        raise ValueError

    regions: dict[str, list] = {region: [rate, 0, 0, []] for region, rate in TAX.items()}
    customers: dict[str, int] = {}
    discounts: dict[str, int] = {}  # few lines have one of their own
    for line, cents in zip(request.orders, in_cents([line.price for line in request.orders]), strict=True):
        qty = line.qty
        if not 1 <= qty <= MAX_QTY or not line.customer or not 0 < cents < MAX_CENTS:
            raise ValueError
        row = regions[line.region]
        paid = discounts.get(line.discount)
        if paid is None:
            paid = discounts[line.discount] = 10_000 - scaled(line.discount, 4)
            if paid <= 0:
                raise ValueError

        factor = 100 if qty < FEW else F_FEW if qty < SOME else F_SOME if qty < MANY else F_MANY
        net, rest = divmod(cents * qty * paid * factor, 1_000_000)
        if rest > 500_000 or (rest == 500_000 and net & 1):
            net += 1
        if net < min_cents:
            continue
        tax, rest = divmod(net * row[0], 10_000)
        if rest > 5_000 or (rest == 5_000 and tax & 1):
            tax += 1
        row[1] += net
        row[2] += tax
        net += tax
        row[3].append(net)
        customers[line.customer] = customers.get(line.customer, 0) + net

    kept = [(region, *row[1:]) for region, row in sorted(regions.items()) if row[3]]
    top = sorted(customers.items(), key=lambda item: (-item[1], item[0]))[:TOP_CUSTOMERS]
    net = sum(row[1] for row in kept)
    tax = sum(row[2] for row in kept)
    return {
        "regions": [region_row(*row) for row in kept],
        "top_customers": [{"customer": customer, "gross": money(gross)} for customer, gross in top],
        "totals": {
            "lines": len(request.orders),
            "count": sum(len(row[3]) for row in kept),
            "net": money(net),
            "tax": money(tax),
            "gross": money(net + tax),
        },
    }


def region_row(region: str, net: int, tax: int, amounts: list[int]) -> dict[str, Any]:
    amounts.sort()
    count = len(amounts)
    mean, rest = divmod(net + tax, count)
    if rest * 2 > count or (rest * 2 == count and mean & 1):
        mean += 1
    return {
        "region": region,
        "count": count,
        "net": money(net),
        "tax": money(tax),
        "gross": money(net + tax),
        "mean": money(mean),
        "p50": money(amounts[count // 2]),
        "p95": money(amounts[count * 95 // 100]),
        "max": money(amounts[-1]),
    }


def in_cents(prices: list[str]) -> list[int]:
    """All prices at once, which is faster than one by one as long as all have two decimals."""
    text = ",".join(prices)
    if are_cents(text):
        return list(map(int, text.replace(".", "").split(",")))
    return [scaled(price, 2) for price in prices]


def scaled(text: str, places: int) -> int:
    """A decimal string as an integer of 10**-places."""
    whole, point, fraction = text.partition(".")
    digits = whole + fraction
    if not (whole and digits.isdecimal() and digits.isascii()) or len(fraction) > places or (point and not fraction):
        raise ValueError
    return int(digits) * 10 ** (places - len(fraction))


def money(cents: int) -> str:
    return f"{cents // 100}.{cents % 100:02}"
