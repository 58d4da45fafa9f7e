"""The settings dict `MOLT`: read when first needed, checked key by key, read again when a test overrides it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from django.conf import settings as django_settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed
from django.http import HttpRequest, HttpResponse
from django.utils.module_loading import import_string

from ..attachment import DEFAULT_SHM
from ..errors import MoltError
from .sizes import bytes_of

SETTING = "MOLT"


class Admission(NamedTuple):
    """`MOLT["ADMISSION"]`, one field for each of its keys (see asgi.py)."""

    paths: tuple[str, ...]
    """What the URLs begin with that it is for; "/" is all of them."""
    in_flight: int = 8
    """Requests that each process works on at once. One that waits for something else, a database, counts as well."""
    wait: float = 0.15
    """Seconds that a request waits for its turn at most; then it is refused."""


class Settings(NamedTuple):
    """One field for each key of `MOLT`, by the key's name, with its default."""

    SHM: str | None = None
    """The worker's segment (`molt_worker --shm`); `/molt0` where neither it nor SOCKET is given, and in a test process a
    name of its own."""
    SOCKET: str | None = None
    """The worker's socket (`molt_worker --socket`). Alone it is enough, and the only way to a segment without a name
    (`molt_worker --memfd`)."""
    TIMEOUT: float = 5.0
    """Seconds for calls and entries that name no time-out."""
    MAX_BODY: int = 64 * 2**20
    """Bytes of a request body; a larger one is answered 413 before anything is read. Django's
    DATA_UPLOAD_MAX_MEMORY_SIZE does not apply, since the body never lies in Django's memory."""
    ATTACH_WAIT: float = 0.0
    """Seconds that the first request waits for a worker that is not there yet."""
    BUSY_STATUS: int = 503
    """HTTP status of Busy: 503 or 429."""
    ERROR_RESPONSE: str | Callable[[HttpRequest, MoltError, int], HttpResponse] | None = None
    """`f(request, error, status)`, or its dotted path, that words error answers in place of molt_accel's own."""
    OFFLOAD: bool = True
    """False: every decorated view runs its own code, as after `manage.py molt_switch off`."""
    CANCEL_ON_HANG_UP: bool = True
    """Whether a sync view's work is stopped when its HTTP client hangs up, where the server lets a view see that."""
    SERVER_TIMING: bool | None = None
    """Whether answers carry a `Server-Timing` header with what the offload cost; None: where DEBUG is on."""
    EXPORTS: str | os.PathLike[str] | None = None
    """The manifest that `manage.py molt_worker` starts the worker with; None: the worker's own default."""
    ARENA: str | int | None = None
    """The arena that `manage.py molt_worker` starts the worker with: "auto", "256MiB" or bytes."""
    WORKER_ARGS: Sequence[str] = ()
    """Further flags for `manage.py molt_worker`, such as ("--threads", "4")."""
    TABLES: Mapping[str, Mapping[str, Any]] = MappingProxyType({})
    """Querysets whose rows lie in shared memory: name to `{"queryset": dotted path, "refresh": seconds or None}`."""
    ADMISSION: Admission | Mapping[str, Any] | None = None
    """`{"paths": [...], "in_flight": 8, "wait": 0.15}`: what `molt_accel.django.asgi.admission` goes by."""


_current: Settings | None = None
_is_named = True
"""Whether the project itself says where its worker is."""


def read() -> Settings:
    """The settings in force. ImproperlyConfigured names a wrong key or value."""
    global _current, _is_named
    if _current is None:
        given = getattr(django_settings, SETTING, {})
        _current = check(given)
        _is_named = given.get("SHM") is not None or given.get("SOCKET") is not None
    if not _is_named and _is_test_process():
        _current = _current._replace(SHM=f"/molt-test-{os.getpid()}")
    return _current


def _is_test_process() -> bool:
    """Whether a test runner has set Django up: its tests are no business of the worker that serves somebody's browser."""
    utils = sys.modules.get("django.test.utils")
    return utils is not None and hasattr(utils._TestState, "saved_data")


def check(given: Any) -> Settings:
    """`given` as `Settings`, every key and value checked."""
    if not isinstance(given, dict):
        raise ImproperlyConfigured(f"{SETTING} is a {type(given).__name__}. hint: make it a dict, {SETTING} = {{}}")
    for key in given:
        if key not in Settings._fields:
            raise ImproperlyConfigured(f"{SETTING}[{key!r}] is unknown. hint: {_nearest(key)}")
    checked = Settings(**given)
    shm, socket, error_response = checked.SHM, checked.SOCKET, checked.ERROR_RESPONSE
    timeout, attach_wait, arena, arguments = checked.TIMEOUT, checked.ATTACH_WAIT, checked.ARENA, checked.WORKER_ARGS
    _require("SHM", shm, shm is None or (isinstance(shm, str) and len(shm) > 1), "a name such as '/molt0'")
    is_path = socket is None or (isinstance(socket, str) and socket != "")
    _require("SOCKET", socket, is_path, "a path such as '/run/molt.sock'")
    _require("TIMEOUT", timeout, _is_number(timeout) and timeout > 0, "seconds, over 0")
    _require("MAX_BODY", checked.MAX_BODY, type(checked.MAX_BODY) is int and checked.MAX_BODY > 0, "bytes, over 0")
    _require("ATTACH_WAIT", attach_wait, _is_number(attach_wait) and attach_wait >= 0, "seconds")
    _require("BUSY_STATUS", checked.BUSY_STATUS, checked.BUSY_STATUS in (503, 429), "503 or 429")
    hang_up = checked.CANCEL_ON_HANG_UP
    _require("CANCEL_ON_HANG_UP", hang_up, isinstance(hang_up, bool), "True or False")
    _require("OFFLOAD", checked.OFFLOAD, isinstance(checked.OFFLOAD, bool), "True or False")
    is_switch = checked.SERVER_TIMING is None or isinstance(checked.SERVER_TIMING, bool)
    _require("SERVER_TIMING", checked.SERVER_TIMING, is_switch, "True, False or None")
    is_path = checked.EXPORTS is None or isinstance(checked.EXPORTS, (str, os.PathLike))
    _require("EXPORTS", checked.EXPORTS, is_path, "the manifest's path")
    _require("ARENA", arena, arena is None or _is_size(arena), "'auto', a size such as '256MiB' or bytes")
    is_list = isinstance(arguments, (list, tuple)) and all(isinstance(argument, str) for argument in arguments)
    _require("WORKER_ARGS", arguments, is_list, "a list of strings, such as ['--threads', '4']")
    _require("TABLES", checked.TABLES, isinstance(checked.TABLES, Mapping), "a dict of table names")
    for name, table in checked.TABLES.items():
        _require_table(name, table)
    if isinstance(error_response, str):
        try:
            error_response = import_string(error_response)
        except ImportError as reason:
            raise ImproperlyConfigured(f"{SETTING}['ERROR_RESPONSE'] is {error_response!r}: {reason}") from None
    holds = error_response is None or callable(error_response)
    _require("ERROR_RESPONSE", error_response, holds, "a function or its dotted path")
    admission = None if checked.ADMISSION is None else _admission(checked.ADMISSION)
    shm = DEFAULT_SHM if shm is None and socket is None else shm
    return checked._replace(SHM=shm, ERROR_RESPONSE=error_response, ADMISSION=admission)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_size(value: Any) -> bool:
    try:
        return (isinstance(value, str) or type(value) is int) and bytes_of(value) != 0
    except ValueError:
        return False


def _require(key: str, value: Any, holds: bool, what: str) -> None:
    if not holds:
        raise ImproperlyConfigured(f"{SETTING}[{key!r}] is {value!r}. hint: give {what}")


def _admission(given: Any) -> Admission:
    example = "{'paths': ['/totals/']}"
    _require("ADMISSION", given, isinstance(given, Mapping) and "paths" in given, f"the URLs that it is for, {example}")
    for key in given:
        if key not in Admission._fields:
            hint = _nearest(key, Admission._fields)
            raise ImproperlyConfigured(f"{SETTING}['ADMISSION'][{key!r}] is unknown. hint: {hint}")
    wanted = Admission(**given)
    paths = wanted.paths
    is_paths = isinstance(paths, (list, tuple)) and all(isinstance(one, str) and one[:1] == "/" for one in paths)
    _require("ADMISSION", given, is_paths and len(paths) > 0, f"a list of what URLs begin with, {example}")
    _require("ADMISSION", given, type(wanted.in_flight) is int and wanted.in_flight > 0, "in_flight as a number over 0")
    _require("ADMISSION", given, _is_number(wanted.wait) and wanted.wait >= 0, "wait in seconds")
    return wanted._replace(paths=tuple(paths))


def _require_table(name: Any, table: Any) -> None:
    key = f"{SETTING}['TABLES'][{name!r}]"
    if not isinstance(name, str) or not isinstance(table, Mapping) or not isinstance(table.get("queryset"), str):
        raise ImproperlyConfigured(
            f"{key} is {table!r}. hint: give {{'queryset': 'shop.models.orders', 'refresh': 60}}"
        )
    for unknown in table.keys() - _OF_A_TABLE:
        raise ImproperlyConfigured(f"{key}[{unknown!r}] is unknown. hint: {_nearest(unknown, _OF_A_TABLE)}")
    every = table.get("refresh")
    if every is not None and not (_is_number(every) and every > 0):
        raise ImproperlyConfigured(f"{key}['refresh'] is {every!r}. hint: give seconds, over 0, or None")


_OF_A_TABLE = ("queryset", "refresh")


def _nearest(key: Any, known: Sequence[str] = Settings._fields) -> str:
    from difflib import get_close_matches

    near = get_close_matches(str(key).upper(), [name.upper() for name in known], 1, 0.5)
    named = {name.upper(): name for name in known}
    return f"did you mean {named[near[0]]!r}?" if near else f"known keys: {', '.join(known)}"


def _changed(*, setting: str, **kwargs: Any) -> None:
    global _current
    if setting == SETTING:
        _current = None


setting_changed.connect(_changed, dispatch_uid="molt_accel.django.settings")
