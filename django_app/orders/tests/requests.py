"""Order requests of every kind, valid and broken, for comparing the three summaries."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

from orders.rules import FIELD_FAULTS, MAX_DEPTH, TAX_RATES


class Raw:
    """JSON text that stands in a body as it is, valid or not."""

    def __init__(self, text: str) -> None:
        self.text = text


def nested(depth: int) -> Raw:
    return Raw("[" * depth + "]" * depth)


#: Values that are right somewhere and wrong elsewhere; all of them JSON.
ODD_VALUES = [
    None, True, False, 0, 1, -1, 3, 10_000, 10_001, 2**31, 2**63, 2**64, 10**30, 3.0, 3.5, -0.0, "", " ", "3", [], {},
    [1], {"a": 1}, "\u00e9", "\u0663", "\u0000", "\U0001f600", "null", "a\\\"b/\n\t", "\u2028", Raw("-0"), Raw("3e0"),
    Raw("3E+0"), Raw("30e-1"), Raw("1e400"), Raw("-1e400"), Raw("1e-400"), Raw("1.7976931348623159e308"),
    Raw("9" * 308), Raw("9" * 310), Raw("9" * 4301), Raw("-" + "9" * 5000), Raw("0." + "1" * 400),
    Raw("1" + "0" * 400 + "e-400"), Raw('"\\ud83d\\ude00"'), Raw('"\\u0041\\/\\b\\f"'), nested(1), nested(30),
    nested(120), Raw('{"a":' * 50 + "1" + "}" * 50),
]  # fmt: skip
#: Text that is no JSON, or JSON that some parsers take and others do not.
BROKEN = [
    "NaN", "Infinity", "-Infinity", "nan", "01", "+1", "-", "1.", ".5", "1e", "1e+", "0x10", "1_000", "--1", "- 1",
    "tru", "True", "None", "'a'", '"', '"a', '"\t"', '"\x00"', '"\x1f"', '"\\x41"', '"\\u12"', '"\\u12G4"', '"\\"',
    '"\\ud800"', '"\\uDFFF"', '"\\ud800\\ud800"', '"\\udc00\\ud800"', '"a\\ud83dz"', '"\\ud83d\\n"', '"\\\\ud800"',
    '"\\\\\\ud800"', "[1,]", "[,1]", "[1 2]", "{,}", '{"a"}', '{"a":}', '{"a":1,}', "{1:2}", "{a:1}", "[", "]", "{",
    "}", "[}", "/* */ 1", "// 1\n1", "1 2", "\ufeff1", "\xa01", "\x0b1", "\x0c1", "", '{"\\ud800":1}',
    '{"a":"\\ud800"}', '[{"a":["\\udfff"]}]', "1e999e9", "01e999", "[1e999,]", "[" * 2000 + "]" * 2000, "[" * 2000,
    '{"a":' * 2000, "[" * (MAX_DEPTH - 3) + "]" * (MAX_DEPTH - 3), "[" * (MAX_DEPTH - 2) + "]" * (MAX_DEPTH - 2),
    "[" * (MAX_DEPTH - 1) + "]" * (MAX_DEPTH - 1), "[" * MAX_DEPTH + "]" * MAX_DEPTH,
    "[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1),
]  # fmt: skip
#: Decimal strings and what is nearly one.
DECIMALS = [
    "0", "0.0", "0.00", "0.01", "0.001", "0.0001", "0.00001", "00.5", "0.5000", "0.9999", "0.99995", "1", "1.0", "12.3",
    "12.34", "12.345", "12.", ".5", "1e3", "1E2", "+1.00", "-1.00", "-0", " 1.00", "1.00 ", "1.00\n", "1,5", "1_0",
    "\u0661.\u0662", "1.\u0662", "\uff11.5", "999999.99", "1000000", "999999.999", "0999999.99",
    "000000000000000000012.34", "0" * 5000 + "1.50", "9" * 5000, "NaN", "Infinity", "sNaN", "0x1", "1..2", "1.2.3", ".",
    "..", "\u00b2", "1\u00a0", "1\u0000", "0.1 ", "\u0be7",
]  # fmt: skip
MIN_AMOUNTS = [
    0, 10, 10.5, 0.01, 0.1, 99.99, 1e3, 1e12, 999999999999.99, 1000000000000.01, 10**12, 10**12 + 1, -1, -0.01, -0.0,
    0.001, 10.005, 0.015, 1e-300, 1e300, 10**400, 0.30000000000000004, 33.33, 1234567.89, Raw("10.50"), Raw("1e2"),
    Raw("1E-2"), Raw("1e400"), Raw("10.000000000000000001"), Raw("0.1000000000000000055511151231257827"), "10", "10.00",
    "", None, True, False, [], {},
]  # fmt: skip


def generated_requests(count: int, seed: int) -> Iterator[bytes]:
    """`count` request bodies, about four in ten of them valid. The same arguments give the same bodies."""
    random = Random(seed)
    makers: list[Callable[[Random], bytes]] = [valid, valid, valid, odd_field, odd_field, odd_decimal, odd_min_amount]
    makers += [odd_shape, broken_text, mutated, mutated, other_encoding]
    for number in range(count):
        yield makers[number % len(makers)](random)


def line(random: Random) -> dict[str, Any]:
    """A valid line, extremes included."""
    cents = random.choice([1, 5, 50, 99_999_999, *(random.randint(1, most) for most in (99_999_999, 99_999, 20_000))])
    share = random.choice([0, 0, 500, 1250, 9_999, random.randrange(10_000)])
    customers = [
        "\u00c7elik",
        "\u6771\u4eac",
        'a"b\\c',
        " ",
        "\U0001f600",
        "C00001",
        "c00001",
        "\u00e9",
        "\uffff",
        "[{[",
    ]
    return {
        "id": random.randint(1, 10**6),
        "customer": random.choice(customers) if random.random() < 0.3 else f"C{random.randrange(15):05}",
        "region": random.choice(list(TAX_RATES)),
        "category": random.choice(["books", "a\\b", "\u00fc", "[[[{{{", ""]),
        "qty": random.choice([1, 9, 10, 19, 20, 49, 50, 10_000, random.randint(1, 10_000), random.randint(1, 60)]),
        "price": decimal(random, cents, 2),
        "discount": decimal(random, share, 4),
        "ts": 1_760_000_000,
    }


def decimal(random: Random, number: int, places: int) -> str:
    """`number` of 10**-places, sometimes shorter or with leading zeros."""
    text = f"{number // 10**places}.{number % 10**places:0{places}}"
    if random.random() < 0.5:
        text = text.rstrip("0").rstrip(".")
    return "0" * random.choice([0, 0, 0, 0, 1, 5]) + text


def request(random: Random, lines: int | None = None) -> dict[str, Any]:
    count = random.choice([0, 1, 2, 3, 19, 20, 21, 40, random.randint(1, 60)]) if lines is None else lines
    found = {"min_amount": random.choice([0, 10, 10.5, 100, 12345.67])} if random.random() < 0.8 else {}
    members = [*found.items(), ("orders", [line(random) for _ in range(count)])]
    random.shuffle(members)
    return dict(members)


def encode(random: Random, value: Any) -> bytes:
    """JSON in one of the styles that clients have; a Raw's text stands as it is."""
    raws: list[str] = []

    def keep(raw: Raw) -> str:
        raws.append(raw.text)
        return f"@raw {len(raws) - 1}@"

    style = random.choice([{}, {"separators": (",", ":")}, {"indent": 1}, {"indent": "\t\r\n"}])
    text = json.dumps(value, default=keep, ensure_ascii=random.random() < 0.5, **style)
    for number, raw in enumerate(raws):
        text = text.replace(f'"@raw {number}@"', raw)
    return text.encode("utf-8", "surrogatepass")


def valid(random: Random) -> bytes:
    return encode(random, request(random))


def some_line(random: Random) -> tuple[dict[str, Any], dict[str, Any]]:
    """A request, and one of its lines to spoil."""
    whole = request(random, random.randint(1, 8))
    return whole, random.choice(whole["orders"])


def odd_field(random: Random) -> bytes:
    """One or two odd values, in fields that are read and in others; or fields that are missing."""
    whole, _ = some_line(random)
    for _ in range(random.randint(1, 2)):
        spoiled = random.choice(whole["orders"])
        field = random.choice(
            [*FIELD_FAULTS, *FIELD_FAULTS, "id", "category", "ts", "unknown", "orders", "min_amount", ""]
        )
        if random.random() < 0.15:
            spoiled.pop(field, None)
        else:
            spoiled[field] = random.choice(ODD_VALUES)
    return encode(random, whole)


def odd_decimal(random: Random) -> bytes:
    whole, spoiled = some_line(random)
    spoiled[random.choice(["price", "discount"])] = random.choice(DECIMALS)
    return encode(random, whole)


def odd_min_amount(random: Random) -> bytes:
    whole, spoiled = some_line(random)
    whole["min_amount"] = random.choice(MIN_AMOUNTS)
    if random.random() < 0.2:
        spoiled["qty"] = 0
    return encode(random, whole)


def odd_shape(random: Random) -> bytes:
    """Odd tops, lines that are no objects, members that come twice."""
    whole, spoiled = some_line(random)
    kind = random.randrange(6)
    if kind == 0:
        return encode(random, random.choice([*ODD_VALUES, [whole], whole["orders"]]))
    if kind == 1:
        whole["orders"] = random.choice([*ODD_VALUES, spoiled])
    elif kind == 2:
        whole.pop(random.choice(list(whole)))
    elif kind == 3:
        whole["orders"].insert(
            random.randrange(3), random.choice([value for value in ODD_VALUES if not isinstance(value, dict)])
        )
    elif kind == 4:
        whole[random.choice(["unknown", "\u00e9", "qty"])] = random.choice(ODD_VALUES)
    else:
        field = random.choice([*FIELD_FAULTS, "id"])
        first, second = random.sample([encode(random, random.choice(ODD_VALUES)), encode(random, spoiled[field])], 2)
        spoiled[field] = Raw(f'{first.decode()}, "{random.choice([field, "x" + field])}": {second.decode()}')
    return encode(random, whole)


def broken_text(random: Random) -> bytes:
    """Text that is no JSON for at least one parser, in any place; sometimes with a fault of another kind beside it."""
    whole, spoiled = some_line(random)
    if random.random() < 0.3:
        random.choice(whole["orders"])["qty"] = 0
    raw = Raw(random.choice(BROKEN))
    place = random.randrange(5)
    if place == 0:
        return raw.text.encode("utf-8", "surrogatepass")
    if place == 1:
        return encode(random, whole) + raw.text.encode("utf-8", "surrogatepass")
    if place == 2:
        whole[random.choice(["min_amount", "unknown"])] = raw
    elif place == 3:
        whole["orders"].append(raw)
    else:
        spoiled[random.choice([*FIELD_FAULTS, "id", "category", "unknown"])] = raw
    return encode(random, whole)


def mutated(random: Random) -> bytes:
    """A valid body with bytes changed, cut out, doubled or put in."""
    data = bytearray(encode(random, request(random, random.randint(1, 4))))
    for _ in range(random.choice([1, 1, 1, 2, 4])):
        start = random.randrange(len(data) + 1)
        end = min(len(data), start + random.choice([0, 1, 1, 2, 8, 100]))
        kind = random.randrange(6)
        if kind == 0 and start < len(data):
            data[start] ^= 1 << random.randrange(8)
        elif kind == 1:
            del data[start:end]
        elif kind == 2:
            data[start:start] = data[start:end]
        elif kind == 3:
            data[start:start] = random.randbytes(random.randint(1, 3))
        elif kind == 4:
            data[start:start] = random.choice(b'{}[]",:\\-+.eE0123456789ntf \t\n\r\x00').to_bytes(1)
        else:
            del data[start:]
    return bytes(data)


def other_encoding(random: Random) -> bytes:
    text = encode(random, request(random, random.randint(0, 3)))
    kind = random.randrange(7)
    if kind == 0:
        return random.choice([b"", b" ", b"\n", b"\x00", b"\xff\xfe", b"\xef\xbb\xbf"])
    if kind == 1:
        return b"\xef\xbb\xbf" + text
    if kind == 2:
        bad = random.choice(
            [
                b"\xff",
                b"\xc3",
                b"\xe2\x28\xa1",
                b"\xed\xa0\x80",
                b"\xc0\xaf",
                b"\xf8\x88\x80\x80\x80",
                b"\xf4\x90\x80\x80",
            ]
        )
        place = random.choice([b'"category": "', b'"category":"', b'"customer": "', b'"customer":"'])
        return text.replace(place, place + bad, 1)
    if kind == 3:
        return random.choice([b" \t\r\n", b"\xc2\xa0", b"\x0b"]) + text + random.choice([b" \t\r\n", b"\x00", b""])
    return text.decode().encode(
        random.choice(["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be", "utf-7"])
    )
