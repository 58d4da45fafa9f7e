"""Reads a body as JSON by rule 1 of `orders.rules`, where the standard library is more generous or gives up sooner."""

from __future__ import annotations

import json
import math
import re
from typing import Any, NoReturn

from orders.errors import OrderError
from orders.rules import MAX_DEPTH, NOT_JSON

# One escape. Group 1: half a surrogate pair without the other half.
_ESCAPE = re.compile(rb"\\(?:u[dD][89abAB]..\\u[dD][c-fC-F]..|(u[dD][89a-fA-F])|.)", re.DOTALL)
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)


def loads(body: bytes) -> Any:
    """The value in `body`; raises OrderError where it is not valid JSON by our rules."""
    try:
        text = body.decode()  # json.loads would guess UTF-16 and UTF-32
        value = json.loads(text, parse_constant=_refuse)
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError):
        raise OrderError(NOT_JSON) from None
    except ValueError:  # an integer of more digits than int() takes from a stranger
        try:
            value = json.loads(text, parse_constant=_refuse, parse_int=_long_int)
        except (json.JSONDecodeError, RecursionError):
            raise OrderError(NOT_JSON) from None
    orders = value.get("orders") if isinstance(value, dict) else None
    lines = list(map(type, orders)).count(dict) if isinstance(orders, list) else -2
    check_text(body, lines)
    return value


def check_text(body: bytes, lines: int) -> None:
    """What a parser does not tell: lone surrogates and depth.

    `lines` objects are known to lie in the list `orders` of the top-level object, -2 stands for no such list. The
    brackets of all these nest three deep, so only the others have to be looked at.
    """
    if b"\\" in body and b"\\u" in body and any(match[1] for match in _ESCAPE.finditer(body)):
        raise OrderError(NOT_JSON)
    others = body.count(b"{") + body.count(b"[") - lines - 2
    if others > MAX_DEPTH - 3 and _depth(body) > MAX_DEPTH:
        raise OrderError(NOT_JSON)


def _depth(body: bytes) -> int:
    """How deep the brackets of a well-formed body nest."""
    depth = deepest = 0
    for byte in _STRING.sub(b"", body):
        if byte in b"{[":
            depth += 1
            deepest = max(deepest, depth)
        elif byte in b"}]":
            depth -= 1
    return deepest


def _long_int(digits: str) -> float:
    return int(digits) if len(digits) < 300 else math.inf


def _refuse(_name: str) -> NoReturn:
    raise OrderError(NOT_JSON)
