"""Tables from the database: `MOLT["TABLES"]` names querysets whose rows lie in shared memory, for SQL and everybody.

`{"orders": {"queryset": "shop.models.recent_orders", "refresh": 60}}`: the dotted path of a function that returns a
queryset, of a queryset, a manager or a model; seconds between two refreshes (None: `manage.py molt_tables refresh`
alone). Each refresh is one statement, so it sees the committed rows of one moment, and takes its name in one step; one
that fails leaves the last version where it is.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from django.conf import settings as django_settings
from django.core.exceptions import ImproperlyConfigured
from django.db import close_old_connections, models
from django.utils.module_loading import import_string

from ..client import Client
from ..errors import MoltError
from ..resident import TableInfo
from . import adbc, settings

logger = logging.getLogger("molt_accel.tables")

CHUNK_ROWS = 10_000
"""Rows that the database hands over at once, and rows of a batch."""
LOOK_SECONDS = 1.0
"""Between two looks whether a table is due, or the worker a new one."""
FIRST_RETRY, LONGEST_RETRY = 1.0, 60.0
"""Seconds until a refresh that failed is tried again; they double, up to the table's own interval."""


class Column(NamedTuple):
    """A column of a queryset's rows, as Arrow has it."""

    name: str
    kind: Any
    """Its Arrow type."""
    convert: Callable[[Any], Any] | None
    """What makes of a value one that the type takes; None where it does as it is."""
    field: Any
    """The model's field, or that of an expression."""
    computed: bool = False
    """Whether it is an expression's."""


def read(queryset: models.QuerySet[Any]) -> Any:
    """The rows of a queryset as a pyarrow Table; types are those of the model's fields."""
    pa = _pyarrow()
    columns = list(_columns(queryset, pa))
    names = [column.name for column in columns]
    schema = pa.schema([(column.name, column.kind) for column in columns])
    by_adbc = adbc.read(queryset, columns, schema)
    if by_adbc is not None:
        return by_adbc
    rows = queryset.values_list(*names).iterator(chunk_size=CHUNK_ROWS)
    batches = []
    while chunk := [row for _, row in zip(range(CHUNK_ROWS), rows, strict=False)]:
        arrays = []
        for column, values in zip(columns, zip(*chunk, strict=True), strict=True):
            if column.convert is not None:
                values = tuple(None if value is None else column.convert(value) for value in values)
            try:
                arrays.append(pa.array(values, column.kind))
            except (pa.ArrowException, OverflowError, TypeError) as reason:
                raise ValueError(f"column {column.name!r} does not fit {column.kind}: {reason}") from reason
        batches.append(pa.RecordBatch.from_arrays(arrays, schema=schema))
    return pa.Table.from_batches(batches, schema)


def refresh(client: Client, name: str) -> TableInfo:
    """Reads the queryset of `MOLT["TABLES"][name]` and publishes its rows under that name."""
    return client.put(name, read(queryset_of(name)))


def queryset_of(name: str) -> models.QuerySet[Any]:
    """What the settings name for a table. ImproperlyConfigured: it is no queryset."""
    path = wanted()[name]["queryset"]
    try:
        found = import_string(path)
    except ImportError as reason:
        raise ImproperlyConfigured(f"{_key(name)}['queryset'] is {path!r}: {reason}") from None
    if isinstance(found, type) and issubclass(found, models.Model):
        found = found._default_manager
    elif callable(found) and not isinstance(found, models.Manager):
        found = found()
    if not isinstance(found, (models.QuerySet, models.Manager)):
        raise ImproperlyConfigured(
            f"{_key(name)}['queryset'] is {path!r}, a {type(found).__name__}. hint: give the dotted path of a model, a "
            "manager, a queryset or of a function that returns one"
        )
    return found.all()


def wanted() -> Mapping[str, Mapping[str, Any]]:
    """`MOLT["TABLES"]`."""
    return settings.read().TABLES


def keep_fresh(client: Client, is_over: Callable[[], bool], pause: Callable[[float], Any] = time.sleep) -> None:
    """Refreshes every table when it is due, and all of them for a new worker, until it is over."""
    due = dict.fromkeys(wanted(), 0.0)
    failures = dict.fromkeys(due, 0)
    epoch = None
    while not is_over():
        now = time.monotonic()
        serving = _epoch(client)
        if serving is not None:
            if serving != epoch:
                epoch, due = serving, dict.fromkeys(due, now)
                failures = dict.fromkeys(due, 0)
            for name in [name for name, at in due.items() if at <= now]:
                began = time.monotonic()
                failures[name] = 0 if _try(client, name) else failures[name] + 1
                ended = time.monotonic()
                # What takes longer than its interval gets a pause as long as itself: the database has other work.
                due[name] = ended + max(ended - began, _interval(name, failures[name]))
        pause(LOOK_SECONDS)


def unread(listed: Iterable[TableInfo]) -> list[str]:
    """The tables of the settings that the worker does not have: none of their refreshes has gone well yet."""
    there = {table.name for table in listed if not table.retired}
    return [name for name in wanted() if name not in there]


def age(info: TableInfo) -> str:
    """How old a table is, for people; LATE where the settings want it refreshed and that has failed more than once."""
    every = wanted().get(info.name, {}).get("refresh")
    late = every is not None and not info.retired and info.age > 3 * every + LOOK_SECONDS
    minutes, seconds = divmod(int(info.age), 60)
    hours, minutes = divmod(minutes, 60)
    text = f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
    return f"{text} LATE" if late else text


def _interval(name: str, failures: int) -> float:
    """Seconds until a table is due after so many failures in a row."""
    every: float = wanted()[name].get("refresh") or math.inf
    return min(every, FIRST_RETRY * 2 ** min(failures - 1, 16), LONGEST_RETRY) if failures else every


def _try(client: Client, name: str) -> bool:
    """Whether the refresh went well; if not, the log has why."""
    began = time.monotonic()
    try:
        close_old_connections()  # as before a request: one that the database has closed meanwhile is of no use any more
        info = refresh(client, name)
    except MoltError as reason:
        logger.error("table %s is not refreshed, its last version stays: %s", name, reason, extra={"table": name})
    except Exception:  # of the database, or of the project's own function: none of them may end the keeper
        logger.exception("table %s is not refreshed, its last version stays", name, extra={"table": name})
    else:
        took = time.monotonic() - began
        text = "table %s: version %d, %d rows, %d bytes, in %.3f s"
        logger.info(text, name, info.version, info.rows, info.bytes, took, extra={"table": name})
        return True
    finally:
        close_old_connections()
    return False


def _epoch(client: Client) -> int | None:
    """Which worker serves now; None: none does. A session would go on looking at the one that it was made with."""
    try:
        stats = Client(client.shm, 0.0, client.socket).stats()
    except MoltError:
        return None
    return stats["segment"]["epoch"] if stats["worker"]["state"] == "serving" else None


def _key(name: str) -> str:
    return f"{settings.SETTING}['TABLES'][{name!r}]"


def _columns(queryset: models.QuerySet[Any], pa: Any) -> Iterator[Column]:
    query, model = queryset.query, queryset.model
    annotations = dict(query.annotation_select)
    if query.values_select:
        plain = [(name, _field(model, name)) for name in query.values_select]
    elif getattr(queryset, "_fields", None) is not None:
        plain = []  # values("an_annotation")
    else:
        plain = [(field.attname, field) for field in model._meta.concrete_fields]
    for name, field in plain:
        yield _column(name, field, pa)
    for name, expression in annotations.items():
        column = _column(name, expression.output_field, pa)._replace(computed=True)
        # What the database computes may be larger than the fields it computes from: a sum is.
        if pa.types.is_integer(column.kind):
            column = column._replace(kind=pa.int64())
        elif pa.types.is_decimal(column.kind):
            column = column._replace(kind=pa.decimal128(38, column.kind.scale))
        yield column


def _field(model: type[models.Model], path: str) -> Any:
    """The field at the end of `customer__region__name`."""
    *relations, last = path.split("__")
    for name in relations:
        model = model._meta.get_field(name).related_model  # type: ignore[assignment]
    if last == "pk":
        return model._meta.pk
    named = {field.attname: field for field in model._meta.concrete_fields}
    return named.get(last) or model._meta.get_field(last)


def _column(name: str, field: Any, pa: Any) -> Column:
    while isinstance(field, models.ForeignKey):
        field = field.target_field
    if isinstance(field, models.DecimalField):
        places = 10 if field.decimal_places is None else field.decimal_places
        return Column(name, pa.decimal128(min(38, field.max_digits or 38), places), None, field)
    if isinstance(field, models.DateTimeField):
        return Column(name, pa.timestamp("us", "UTC" if django_settings.USE_TZ else None), None, field)
    for kind, arrow in (
        (models.BooleanField, pa.bool_()),
        (models.SmallIntegerField, pa.int16()),
        (models.PositiveSmallIntegerField, pa.int16()),
        (models.BigIntegerField, pa.int64()),
        (models.PositiveBigIntegerField, pa.int64()),
        (models.IntegerField, pa.int32()),
        (models.FloatField, pa.float64()),
        (models.DateField, pa.date32()),
        (models.TimeField, pa.time64("us")),
        (models.DurationField, pa.duration("us")),
    ):
        if isinstance(field, kind):
            return Column(name, arrow, None, field)
    if isinstance(field, models.BinaryField):
        return Column(name, pa.binary(), bytes, field)
    if isinstance(field, models.JSONField):
        return Column(name, pa.string(), json.dumps, field)
    if isinstance(field, (models.CharField, models.TextField)):
        return Column(name, pa.string(), None, field)
    return Column(name, pa.string(), str, field)  # UUID, addresses, files, fields of other packages


def _pyarrow() -> Any:
    try:
        import pyarrow
    except ImportError:
        raise ImproperlyConfigured(
            f"{settings.SETTING}['TABLES'] needs pyarrow. hint: pip install 'molt_accel[pyarrow]'"
        ) from None
    return pyarrow
