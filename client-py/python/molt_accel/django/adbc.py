"""Rows straight from the database as Arrow (ADBC), for SQLite files and PostgreSQL where the driver is installed.

The ORM makes a Python object of every value, and Arrow is made of those: for large tables that is most of a refresh's
time. The driver's columns are cast to the types that the model's fields have, and only casts that give exactly what
the ORM gives are made here. Whatever else a queryset has (a JSON field, a field with converters of its own, decimals
in SQLite, which keeps them as floats) is read by the ORM, as is everything inside a transaction, whose rows another
connection does not see.
"""

from __future__ import annotations

import datetime as dt
import logging
import re
from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from django.core.exceptions import EmptyResultSet
from django.db import connections, models

if TYPE_CHECKING:
    from .tables import Column

logger = logging.getLogger("molt_accel.tables")

SAMPLE_ROWS = 65_536
"""Rows by which SQLite's driver finds a column's type; where it finds another one later, the ORM reads."""
_DRIVERS = {"sqlite": "adbc_driver_sqlite.dbapi", "postgresql": "adbc_driver_postgresql.dbapi"}
_PLAIN = (
    models.BooleanField,
    models.IntegerField,
    models.FloatField,
    models.CharField,
    models.TextField,
    models.DateField,  # datetimes too
    models.BinaryField,
    models.UUIDField,
)
_COMPUTED = (models.BooleanField, models.IntegerField, models.FloatField, models.CharField, models.TextField)
"""Of expressions: those of times convert what the database gives by zones of their own."""
_ONLY_POSTGRESQL = (models.DecimalField, models.TimeField)
_LIBPQ = frozenset(
    {"sslmode", "sslrootcert", "sslcert", "sslkey", "application_name", "connect_timeout", "passfile", "options"}
)
"""Options of Django's DATABASES that the driver's libpq understands as they are."""
_PLACEHOLDER = re.compile(r"(?<!%)%s")


class NotByAdbc(Exception):
    """Why a queryset is left to the ORM."""


def read(queryset: models.QuerySet[Any], columns: Sequence[Column], schema: Any) -> Any:
    """The rows as a pyarrow Table of that schema; None: the ORM is to read them."""
    try:
        return _read(queryset, columns, schema)
    except NotByAdbc as reason:
        logger.debug("read by the ORM: %s", reason)
    except Exception as reason:  # of a driver, or of a cast: the ORM reads it, or says what is wrong
        logger.debug("read by the ORM: %s: %s", type(reason).__name__, reason)
    return None


def _read(queryset: models.QuerySet[Any], columns: Sequence[Column], schema: Any) -> Any:
    import pyarrow as pa

    connection = connections[queryset.db]
    if connection.vendor not in _DRIVERS:
        raise NotByAdbc(f"there is no driver for {connection.vendor}")
    for column in columns:
        _require_exact(column, connection)
    if connection.in_atomic_block:
        raise NotByAdbc("a transaction is open")
    try:
        driver = import_module(_DRIVERS[connection.vendor])
    except ImportError:
        raise NotByAdbc(f"{_DRIVERS[connection.vendor].partition('.')[0]} is not installed") from None
    names = [column.name for column in columns]
    try:
        sql, params = queryset.values_list(*names).query.get_compiler(using=queryset.db).as_sql()
    except EmptyResultSet:
        raise NotByAdbc("it is empty before it is asked") from None
    address, sql, params = _SETUPS[connection.vendor](connection, sql, params)
    with driver.connect(address) as opened, opened.cursor() as cursor:
        if connection.vendor == "sqlite":  # has no types: the driver goes by the first batch
            cursor.adbc_statement.set_options(**{"adbc.sqlite.query.batch_rows": str(SAMPLE_ROWS)})
        cursor.execute(sql, params or None)
        found = cursor.fetch_arrow_table()
    if found.num_columns != len(columns):
        raise NotByAdbc(f"{found.num_columns} columns came where {len(columns)} were asked for")
    casts = [_cast(found.column(at), column, pa) for at, column in enumerate(columns)]
    return pa.Table.from_arrays(casts, schema=schema)


def _require_exact(column: Column, connection: Any) -> None:
    field, on_sqlite = column.field, connection.vendor == "sqlite"
    kinds = _COMPUTED if column.computed else _PLAIN if on_sqlite else (*_PLAIN, *_ONLY_POSTGRESQL)
    if on_sqlite and column.computed and isinstance(field, models.FloatField):
        raise NotByAdbc("SQLite's driver brings its own SQLite, which need not add up floats in the same way")
    if on_sqlite and isinstance(field, models.DateTimeField) and connection.timezone not in (None, dt.UTC):
        raise NotByAdbc(f"the database's times are in {connection.timezone}")
    # Subclasses may mean something else by the same column, and say so by a converter.
    plain = type(field).get_db_converters is models.Field.get_db_converters and not hasattr(field, "from_db_value")
    if not isinstance(field, kinds) or not plain:
        raise NotByAdbc(f"column {column.name!r} is a {type(field).__name__}")


def _sqlite(connection: Any, sql: str, params: Sequence[Any]) -> tuple[str, str, Sequence[Any]]:
    name = str(connection.settings_dict["NAME"])
    if connection.is_in_memory_db() or name.startswith("file:"):
        raise NotByAdbc("the database lies in the process's memory, or under an address of its own")
    if not all(value is None or type(value) in (int, float, str, bytes) for value in params):
        raise NotByAdbc("a parameter of the statement is an object")
    return f"file:{quote(name)}?mode=ro", _PLACEHOLDER.sub("?", sql).replace("%%", "%"), params


def _postgresql(connection: Any, sql: str, params: Sequence[Any]) -> tuple[str, str, Sequence[Any]]:
    known = connection.settings_dict
    options = {name: value for name, value in known["OPTIONS"].items() if value is not None}
    if not known["NAME"] or not options.keys() <= _LIBPQ:
        raise NotByAdbc(f"the options {', '.join(sorted(options.keys() - _LIBPQ)) or 'of a service'} are Django's own")
    given = {"host": known["HOST"], "port": known["PORT"], "user": known["USER"], "password": known["PASSWORD"]}
    query = {name: str(value) for name, value in {"dbname": known["NAME"], **given, **options}.items() if value}
    connection.ensure_connection()
    # The values are put in by the database's own client, as Django does it.
    return f"postgresql://?{urlencode(query, quote_via=quote)}", connection.ops.compose_sql(sql, params), ()


_SETUPS = {"sqlite": _sqlite, "postgresql": _postgresql}


def _cast(values: Any, column: Column, pa: Any) -> Any:
    """The driver's column as the field's type. ArrowInvalid: a value does not fit."""
    import pyarrow.compute as pc

    kind = column.kind
    values = getattr(values.combine_chunks(), "storage", values.combine_chunks())  # of an extension type
    if values.null_count == len(values):  # SQLite's driver takes it for a column of integers
        return pa.nulls(len(values), kind)
    if isinstance(column.field, models.UUIDField):
        return _dashed(values, pa, pc)
    if pa.types.is_timestamp(kind) and pa.types.is_string(values.type):  # SQLite's text, in UTC
        return pc.assume_timezone(values.cast(pa.timestamp("us")), "UTC") if kind.tz else values.cast(kind)
    if pa.types.is_timestamp(kind) and bool(values.type.tz) != bool(kind.tz):
        raise NotByAdbc(f"column {column.name!r} came as {values.type}")
    if pa.types.is_boolean(kind) and pa.types.is_integer(values.type):
        return pc.not_equal(values, 0)
    if pa.types.is_string(kind) and not pa.types.is_string(values.type):
        raise NotByAdbc(f"column {column.name!r} came as {values.type}")
    return values.cast(kind)


def _dashed(values: Any, pa: Any, pc: Any) -> Any:
    """UUIDs as `str(uuid)` writes them: SQLite keeps 32 digits."""
    if not pa.types.is_string(values.type) or not pc.all(pc.equal(pc.utf8_length(values), 32)).as_py():
        raise NotByAdbc(f"UUIDs came as {values.type}")
    parts = [
        pc.utf8_slice_codeunits(values, start, end) for start, end in ((0, 8), (8, 12), (12, 16), (16, 20), (20, 32))
    ]
    return pc.utf8_lower(pc.binary_join_element_wise(*parts, "-"))
