"""The rules of the order summary, kept by `baseline`, `tuned` and the native entry alike; a test compares the three.

The request: `{"min_amount": 10, "orders": [{"qty": 3, "region": "north", "customer": "C00017", "price": "12.34",
"discount": "0.05", ...}]}`. Other members (`id`, `category`, `ts`, anything unknown) are not read, whatever they hold.

The answer: `{"regions": [...], "top_customers": [...], "totals": {...}}`; money is a string with two decimals.
- `net` of a line = price * qty * (1 - discount) * (1 - tier), `tax` = net * the region's rate, each rounded half-even
  to 0.01; `gross` = net + tax. Lines whose net is under `min_amount` are checked like all others, then dropped.
- A region has `region`, `count`, the sums `net`, `tax`, `gross`, and of its lines' gross amounts `mean` (half-even),
  `p50` (element `len // 2` in order), `p95` (element `int(len * 0.95)`), `max`. Regions without a line are left out;
  the others are sorted.
- `top_customers`: `customer`, `gross` of the ten with the highest gross, ties by name (code points).
- `totals`: `lines` (received), `count` (kept), `net`, `tax`, `gross`.

Faults: the first one found is answered as `{"error": message, "index": line or null, "field": name or null}`:
1. The body as a whole (`NOT_JSON`): it has to be UTF-8 without a byte order mark, and JSON as RFC 8259 has it (so no
   NaN, no Infinity, no UTF-16). Lone surrogate escapes (`"\\ud800"`) make it invalid wherever they stand, also in
   members that are not read, and so does nesting deeper than `MAX_DEPTH`. Numbers may have any size and length. Of a
   member that comes twice, the last one counts.
2. `NOT_AN_OBJECT`, `NO_ORDERS`, `BAD_MIN_AMOUNT`. `min_amount` may be left out (then it is 0), but not null. It is read
   as a double, which has to be the one nearest to a whole number of cents, from 0 to `MAX_MIN_AMOUNT`.
3. The lines in their order; in each line `NOT_A_LINE`, then the fields in the order of `FIELD_FAULTS`. A field that is
   missing is a field with a wrong value. An integer is a JSON number without fraction and exponent: 3.0, 3e0 and true
   are none. Decimal strings are ASCII digits, and perhaps a point and 1 to 2 (price) or 1 to 4 (discount) digits: no
   sign, no exponent, no space, no digits of other scripts. Leading zeros do no harm.
"""

from __future__ import annotations

from decimal import Decimal

#: Tax rate of every region that there is.
TAX_RATES = {
    "central": Decimal("0.08"),
    "east": Decimal("0.0725"),
    "north": Decimal("0.05"),
    "northeast": Decimal("0.0625"),
    "northwest": Decimal("0.065"),
    "south": Decimal("0.095"),
    "southwest": Decimal("0.1025"),
    "west": Decimal("0.12"),
}
#: (from this many pieces, rebate), the highest first.
TIERS = ((50, Decimal("0.12")), (20, Decimal("0.07")), (10, Decimal("0.03")))

MAX_QTY = 10_000
MAX_PRICE = 1_000_000
MAX_MIN_AMOUNT = 1_000_000_000_000
MAX_DEPTH = 127
TOP_CUSTOMERS = 10

NOT_JSON = "the body is not valid JSON"
NOT_AN_OBJECT = "the body must be an object"
NO_ORDERS = "orders must be a list"
BAD_MIN_AMOUNT = "min_amount must be a number from 0 to 1000000000000 with at most 2 decimals"
NOT_A_LINE = "a line must be an object"
FIELD_FAULTS = {
    "qty": "qty must be an integer from 1 to 10000",
    "region": "region must be one of " + ", ".join(TAX_RATES),
    "customer": "customer must be a non-empty string",
    "price": "price must be a decimal string over 0 and under 1000000 with at most 2 decimals",
    "discount": "discount must be a decimal string from 0 to under 1 with at most 4 decimals",
}
