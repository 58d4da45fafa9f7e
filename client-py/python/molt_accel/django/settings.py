"""The settings dict `MOLT`: read when first needed, checked key by key, read again when a test overrides it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from django.conf import settings as django_settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed
from django.http import HttpRequest, HttpResponse
from django.utils.module_loading import import_string

from ..client import DEFAULT_SHM
from ..errors import MoltError

SETTING = "MOLT"


class Settings(NamedTuple):
    """One field for each key of `MOLT`, by the key's name, with its default."""

    SHM: str | None = None
    """The worker's segment (`molt_worker --shm`); `/molt0` where neither it nor SOCKET is given."""
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


_current: Settings | None = None


def read() -> Settings:
    """The settings in force. ImproperlyConfigured names a wrong key or value."""
    global _current
    if _current is None:
        _current = check(getattr(django_settings, SETTING, {}))
    return _current


def check(given: Any) -> Settings:
    """`given` as `Settings`, every key and value checked."""
    if not isinstance(given, dict):
        raise ImproperlyConfigured(f"{SETTING} is a {type(given).__name__}. hint: make it a dict, {SETTING} = {{}}")
    for key in given:
        if key not in Settings._fields:
            raise ImproperlyConfigured(f"{SETTING}[{key!r}] is unknown. hint: {_nearest(key)}")
    checked = Settings(**given)
    shm, socket, timeout, max_body, attach_wait, busy_status, error_response = checked
    _require("SHM", shm, shm is None or isinstance(shm, str) and len(shm) > 1, "a name such as '/molt0'")
    is_path = socket is None or (isinstance(socket, str) and socket != "")
    _require("SOCKET", socket, is_path, "a path such as '/run/molt.sock'")
    _require("TIMEOUT", timeout, _is_number(timeout) and timeout > 0, "seconds, over 0")
    _require("MAX_BODY", max_body, type(max_body) is int and max_body > 0, "bytes, over 0")
    _require("ATTACH_WAIT", attach_wait, _is_number(attach_wait) and attach_wait >= 0, "seconds")
    _require("BUSY_STATUS", busy_status, busy_status in (503, 429), "503 or 429")
    if isinstance(error_response, str):
        try:
            error_response = import_string(error_response)
        except ImportError as reason:
            raise ImproperlyConfigured(f"{SETTING}['ERROR_RESPONSE'] is {error_response!r}: {reason}") from None
    holds = error_response is None or callable(error_response)
    _require("ERROR_RESPONSE", error_response, holds, "a function or its dotted path")
    shm = DEFAULT_SHM if shm is None and socket is None else shm
    return checked._replace(SHM=shm, ERROR_RESPONSE=error_response)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _require(key: str, value: Any, holds: bool, what: str) -> None:
    if not holds:
        raise ImproperlyConfigured(f"{SETTING}[{key!r}] is {value!r}. hint: give {what}")


def _nearest(key: Any) -> str:
    from difflib import get_close_matches

    near = get_close_matches(str(key).upper(), Settings._fields, 1, 0.5)
    return f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(Settings._fields)}"


def _changed(*, setting: str, **kwargs: Any) -> None:
    global _current
    if setting == SETTING:
        _current = None


setting_changed.connect(_changed, dispatch_uid="molt_accel.django.settings")
