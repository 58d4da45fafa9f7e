"""System checks, tag `molt`: what is wrong between the settings, the views and the worker, before a request finds out.

| id | level | finds |
| --- | --- | --- |
| molt.E001 | error | a key or value of `MOLT` that is wrong |
| molt.E002 | error | a decorator whose entry neither the running worker nor the manifest has |
| molt.E003 | error | a manifest (`MOLT["EXPORTS"]`) that is not there or is no JSON |
| molt.E004 | error | a table (`MOLT["TABLES"]`) whose queryset is none, or that lacks pyarrow |
| molt.W001 | warning | no worker answers: not started, of another version, another user's |
| molt.W002 | warning | no `molt_worker` executable, where no worker runs either |
| molt.W003 | warning | too little room in /dev/shm for a worker that has yet to start, or for its `MOLT["ARENA"]` |
| molt.W004 | warning | a worker that serves another manifest than `MOLT["EXPORTS"]` |
| molt.W005 | warning | a decorator whose entry the manifest has and the running worker not yet |
| molt.W006 | warning | a path of `MOLT["ADMISSION"]` with which no URL of the project begins |

What concerns the worker alone is a warning: image builds and migrations run where there is none.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from difflib import get_close_matches
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from django.conf import settings as django_settings
from django.core.checks import CheckMessage, Error, Warning
from django.core.exceptions import ImproperlyConfigured
from django.urls import URLResolver, get_resolver

from .._find_worker import find_worker
from ..client import Client
from ..errors import MoltError
from . import command, settings, skew, tables
from .sizes import bytes_of

SMALLEST_SHM_BYTES = 64 * 2**20
"""Free bytes of /dev/shm under which a worker gets no arena to speak of; a container's default, whole."""
BUILT_IN = frozenset({"compute", "echo", "health"})


def check(app_configs: Sequence[Any] | None = None, **kwargs: Any) -> list[CheckMessage]:
    """All of them."""
    try:
        wanted = settings.read()
    except ImproperlyConfigured as reason:
        return [_message(Error, str(reason), "molt.E001")]
    found: list[CheckMessage] = []
    exported = _exported(wanted, found)
    running = _running(wanted, found)
    found += _unknown(running, f"the worker of {wanted.SHM or wanted.SOCKET}", exported)
    return found + _tables(wanted) + _unreached(wanted)


def _unreached(wanted: settings.Settings) -> list[CheckMessage]:
    """Paths for which there is nothing to admit: misspelt, most likely, so that what was meant is not protected."""
    if not isinstance(wanted.ADMISSION, settings.Admission):
        return []
    urls = list(_urls(get_resolver().url_patterns, "/"))
    messages: list[CheckMessage] = []
    for path in wanted.ADMISSION.paths:
        if not any(begins.startswith(path) or (is_open and path.startswith(begins)) for begins, is_open in urls):
            near = get_close_matches(path, [begins for begins, _ in urls], 1, 0.5)
            hint = f"did you mean {near[0]!r}?" if near else "give what a URL begins with, its first '/' included"
            text = f"{settings.SETTING}['ADMISSION']['paths'] has {path!r}: no URL begins with it"
            messages.append(_message(Warning, text, "molt.W006", hint))
    return messages


def _urls(patterns: Sequence[Any], before: str) -> Iterator[tuple[str, bool]]:
    """What each URL begins with, and whether anything may follow."""
    for pattern in patterns:
        route = str(pattern.pattern).removeprefix("^")
        fixed = _ARGUMENT.split(route, 1)[0]
        is_open = fixed != route
        if isinstance(pattern, URLResolver) and not is_open:
            yield from _urls(pattern.url_patterns, before + fixed)
        else:
            yield before + fixed, is_open


_ARGUMENT = re.compile(r"[<(\[$\\.?*+]")
"""Where a route may become one of several."""


def _tables(wanted: settings.Settings) -> list[CheckMessage]:
    found: list[CheckMessage] = []
    if wanted.TABLES and find_spec("pyarrow") is None:
        text = f"{settings.SETTING}['TABLES'] needs pyarrow"
        found.append(_message(Error, text, "molt.E004", "pip install 'molt_accel[pyarrow]'"))
    for name in wanted.TABLES:
        try:
            tables.queryset_of(name)
        except ImproperlyConfigured as reason:
            found.append(_message(Error, str(reason), "molt.E004"))
    return found


def _running(wanted: settings.Settings, found: list[CheckMessage]) -> Collection[str] | None:
    """The entries of the worker that answers now; None without one."""
    client = Client(wanted.SHM, 0.0, wanted.SOCKET)  # not the process's own: a server may fork after its checks
    try:
        client.session()
        found += _skew(client)
        return [entry["name"] for entry in client.stats()["entries"]]
    except MoltError as reason:
        found.append(_absent(str(reason)))
    finally:
        client.close()
    try:
        find_worker()
    except FileNotFoundError as reason:
        found.append(_message(Warning, str(reason), "molt.W002"))
    if wanted.SHM is not None:
        found += _room(wanted)
    return None


def _absent(text: str) -> CheckMessage:
    """Nobody answers. Where there is none, the command that starts one; else the library knows better what to do."""
    message = _message(Warning, text, "molt.W001")
    if message.hint is None or message.hint.startswith("start "):
        message.hint = "start one: `manage.py molt_worker`"
    return message


def _skew(client: Client) -> list[CheckMessage]:
    try:
        text = skew.difference(client)
    except MoltError:  # it hangs or is full: that is not for this check to say
        return []
    return [] if text is None else [_message(Warning, text, "molt.W004", skew.HINT)]


def _room(wanted: settings.Settings) -> list[CheckMessage]:
    arena = command.arena(wanted)
    needed = SMALLEST_SHM_BYTES
    with suppress(ValueError):  # the worker itself says of its flag that it is none
        needed = (arena and bytes_of(arena)) or needed
    try:
        room = os.statvfs("/dev/shm")
    except OSError as reason:
        return [_message(Warning, f"/dev/shm: {reason}", "molt.W003", _ROOM_HINT)]
    free = room.f_bavail * room.f_frsize
    if free >= needed:
        return []
    whose = "a worker with a name wants" if arena is None else f"an arena of {arena} takes"
    text = f"/dev/shm has {free:,} bytes free; {whose} {needed:,} or more"
    return [_message(Warning, text, "molt.W003", _ROOM_HINT)]


_ROOM_HINT = (
    "`docker run --shm-size 1g`, a smaller arena, or a worker without a name: `molt_worker --memfd --socket PATH`"
)


def _exported(wanted: settings.Settings, found: list[CheckMessage]) -> Collection[str] | None:
    """The entries of the manifest that the settings name; None without one."""
    if wanted.EXPORTS is None:
        return None
    try:
        with open(wanted.EXPORTS, encoding="utf-8") as file:
            manifest = json.load(file)
        return BUILT_IN | {export["name"] for export in manifest["exports"]}
    except OSError as reason:
        text = f"{settings.SETTING}['EXPORTS'] is {str(wanted.EXPORTS)!r}: {reason.strerror}"
    except (ValueError, KeyError, TypeError) as reason:
        text = f"{settings.SETTING}['EXPORTS'] is {str(wanted.EXPORTS)!r}: no manifest: {reason!r}"
    found.append(_message(Error, text, "molt.E003"))
    return None


def _unknown(running: Collection[str] | None, worker: str, exported: Collection[str] | None) -> list[CheckMessage]:
    """Entries of decorators that nobody has, or, while a new version is rolled out, the running worker not yet."""
    if running is None and exported is None:
        return []
    known = {*(running or ()), *(exported or ())}
    whose = "the manifest" if running is None else worker
    from .decorator import views

    import_module(django_settings.ROOT_URLCONF)  # decorators report when their modules are imported
    messages: list[CheckMessage] = []
    for entry, names in sorted(views.items()):
        if running is not None and entry not in running and entry in known:
            text = f"@molt_offload(entry={entry!r}) on {', '.join(sorted(names))}: {worker} does not have it yet"
            messages.append(_message(Warning, text, "molt.W005", f"the manifest of the settings has it: {skew.HINT}"))
        elif entry not in known:
            near = get_close_matches(entry, known, 1, 0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(sorted(known))}"
            text = f"@molt_offload(entry={entry!r}) on {', '.join(sorted(names))}: {whose} has no such entry"
            messages.append(Error(text, hint=hint, id="molt.E002"))
    return messages


def _message(kind: Any, text: str, number: str, hint: str | None = None) -> CheckMessage:
    """molt's own messages end in their hint; Django shows it on a line of its own."""
    text, _, own = text.partition("hint: ")
    return kind(text.rstrip(" ;.\n"), hint=hint or own or None, id=number)
