"""The three order summaries answer the same, compared without Django and without a worker."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgpack
import pytest

from orders import baseline, generate, rules, tuned
from orders.errors import OrderError
from orders.tests import native
from orders.tests.requests import generated_requests

INVALID_INPUT = 1


def ended(summarize: Callable[[bytes], dict[str, Any]], body: bytes) -> tuple[int, Any]:
    try:
        return native.OK, json.loads(json.dumps(summarize(body)))
    except OrderError as error:
        return INVALID_INPUT, error.as_dict()


def all_three(body: bytes) -> tuple[int, Any]:
    """How the request ends, which has to be the same everywhere."""
    expected = ended(baseline.summarize, body)
    assert ended(tuned.summarize, body) == expected, f"tuned: {body[:2000]!r}"
    assert native.call("order_summary", body) == expected, f"native: {body[:2000]!r}"
    return expected


def test_equal_over_generated_requests() -> None:
    seen: dict[str, int] = {}
    for body in generated_requests(3_000, seed=7):
        outcome, answer = all_three(body)
        kind = answer["error"] if outcome else "answered"
        seen[kind] = seen.get(kind, 0) + 1
    # Every rule was broken by some request, and many requests were answered.
    faults = {rules.NOT_JSON, rules.NOT_AN_OBJECT, rules.NO_ORDERS, rules.BAD_MIN_AMOUNT, rules.NOT_A_LINE}
    assert set(seen) == {"answered"} | faults | set(rules.FIELD_FAULTS.values())
    assert seen["answered"] > 1_000


def test_equal_over_msgpack() -> None:
    compared = 0
    for body in generated_requests(600, seed=11):
        outcome, answer = ended(baseline.summarize, body)
        if answer.get("error") == rules.NOT_JSON:
            continue
        try:
            packed = msgpack.packb(json.loads(body))
        except (OverflowError, ValueError):  # no such integers in MsgPack, or not even in json.loads
            continue
        assert native.call("order_summary", packed, native.MSGPACK) == (outcome, answer), body[:2000]
        compared += 1
    assert compared > 300


def test_broken_msgpack() -> None:
    packed = msgpack.packb(generate.orders(3))
    for body in (b"", packed[:-1], packed + b"\x00", b"\xc1", b"\x91" * 5_000):
        expected = {"error": "the body is not valid MessagePack", "index": None, "field": None}
        assert native.call("order_summary", body, native.MSGPACK) == (INVALID_INPUT, expected)


@pytest.mark.parametrize("lines", [0, 20, 2_000, 10_000])
def test_equal_for_generated_orders(lines: int) -> None:
    outcome, answer = all_three(generate.body(lines, seed=3))
    assert outcome == native.OK
    assert answer["totals"]["lines"] == lines


def test_worked_example() -> None:
    """By hand: 12.34 * 12 * 0.95 * 0.97 = 136.45572, tax 5%: 6.823; 1.00 is dropped; 0.05 * 0.5 = 0.025 is a tie."""
    line = {"customer": "Ada", "region": "north", "qty": 12, "price": "12.34", "discount": "0.05"}
    small = {"customer": "Bob", "region": "west", "qty": 1, "price": "1", "discount": "0"}
    tie = {"customer": "Ada", "region": "north", "qty": 1, "price": "0.05", "discount": "0.5"}
    request = {"min_amount": 1.01, "orders": [line, small]}
    row = {"region": "north", "count": 1, "net": "136.46", "tax": "6.82", "gross": "143.28", "mean": "143.28"}
    expected = {
        "regions": [row | {"p50": "143.28", "p95": "143.28", "max": "143.28"}],
        "top_customers": [{"customer": "Ada", "gross": "143.28"}],
        "totals": {"lines": 2, "count": 1, "net": "136.46", "tax": "6.82", "gross": "143.28"},
    }
    assert all_three(json.dumps(request).encode()) == (native.OK, expected)
    _, answer = all_three(json.dumps({"orders": [tie]}).encode())
    assert answer["totals"]["net"] == "0.02"  # half-even; half-up would be 0.03


@pytest.mark.parametrize("alone", [True, False])
@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"qty": 0}, "qty"),
        ({"qty": 10_001}, "qty"),
        ({"qty": 0, "region": "Atlantis"}, "qty"),
        ({"region": "Atlantis", "customer": ""}, "region"),
        ({"customer": "", "price": ""}, "customer"),
        ({"price": "0", "discount": ""}, "price"),
        ({"price": "1000000"}, "price"),
        ({"discount": "1"}, "discount"),
    ],
)
def test_first_fault_wins(change: dict[str, Any], field: str, alone: bool) -> None:
    orders = generate.orders(3)["orders"]
    orders[1] |= change
    if not alone:
        orders[2] |= {"qty": None}
    expected = {"error": rules.FIELD_FAULTS[field], "index": 1, "field": field}
    assert all_three(json.dumps({"orders": orders}).encode()) == (INVALID_INPUT, expected)


def test_a_fault_of_the_body_comes_before_one_of_a_line() -> None:
    body = json.dumps({"orders": [{"qty": 0}, {"note": "\ud800"}]}).encode()
    assert all_three(body) == (INVALID_INPUT, {"error": rules.NOT_JSON, "index": None, "field": None})


def test_depth_limit_is_the_same() -> None:
    for depth in range(rules.MAX_DEPTH - 2, rules.MAX_DEPTH + 3):
        for text in ('{"orders": [], "x": ' + "[" * (depth - 1) + "]" * (depth - 1) + "}", "[" * depth + "]" * depth):
            _, answer = all_three(text.encode())
            assert (answer.get("error") == rules.NOT_JSON) == (depth > rules.MAX_DEPTH), (depth, text)
