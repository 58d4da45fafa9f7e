"""Seeded order bodies: `python -m orders.generate --lines 2000 --out orders.json`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from random import Random
from typing import Any

from orders.rules import TAX_RATES

CATEGORIES = ("books", "clothing", "electronics", "garden", "grocery", "sports", "tools", "toys")
DISCOUNTS = ("0", "0.05", "0.1", "0.125", "0.15", "0.2", "0.0375")
CUSTOMERS = 500


def orders(lines: int = 2000, seed: int = 1) -> dict[str, Any]:
    """A request of `lines` valid order lines. The same arguments give the same request."""
    random = Random(seed)
    return {"min_amount": 10, "orders": [_line(random, number) for number in range(1, lines + 1)]}


def body(lines: int = 2000, seed: int = 1) -> bytes:
    """`orders(lines, seed)` as JSON; 2,000 lines are about 257 KB."""
    return json.dumps(orders(lines, seed), separators=(",", ":")).encode()


def _line(random: Random, number: int) -> dict[str, Any]:
    cents = random.randint(100, 99_999)
    return {
        "id": number,
        "customer": f"C{random.randrange(CUSTOMERS):05}",
        "region": random.choice(list(TAX_RATES)),
        "category": random.choice(CATEGORIES),
        "qty": random.choice((1, 1, 2, 3, 5, 8, 12, 25, 60)),
        "price": f"{cents // 100}.{cents % 100:02}",
        "discount": random.choice(DISCOUNTS),
        "ts": 1_760_000_000 + number,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m orders.generate", description="Writes a seeded order body as JSON."
    )
    parser.add_argument("--lines", type=int, default=2000, help="order lines (default: 2000)")
    parser.add_argument("--seed", type=int, default=1, help="another seed, other orders (default: 1)")
    parser.add_argument("--out", type=Path, help="the file to write (default: standard output)")
    options = parser.parse_args()
    data = body(options.lines, options.seed)
    if options.out:
        options.out.write_bytes(data)
    else:
        sys.stdout.buffer.write(data)


if __name__ == "__main__":
    main()
