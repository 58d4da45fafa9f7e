"""The demo's real-life endpoint: a sales report over some million order lines, answered in four ways.

`asked` is what a caller may ask, `generate` and `database` make the tables. `by_orm`, `by_polars` and `by_duckdb`
answer in the web process, the entry `report` of molt_exports.json in the worker. All four answer one list of rows, of
which `part` says what they are:

- `days`: a day and category with sales, by day, then category; `running` is the category's net since the first day.
- `top_customers`: the ten with the highest net, the highest first, ties by customer.
- `top_days`: the ten days with the highest net over all categories, the highest first, ties by day.

Each row has all of `COLUMNS`, null where it says nothing. Money is exact, and a string with two decimals in the answer.
"""

COLUMNS = ("part", "day", "category", "customer", "name", "lines", "pieces", "net", "running")
#: How long the top lists are.
TOP = 10
