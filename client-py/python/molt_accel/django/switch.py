"""The kill switch: every decorated view of this host back to its own code at once, without a deployment.

Off is any of: `MOLT["OFFLOAD"] = False`, the environment variable `MOLT_OFFLOAD=0`, or the file that
`manage.py molt_switch off` leaves. The file lies beside the segment (`/dev/shm/molt0.off`), or beside the socket where
the segment has no name, so that every process of the host sees it at its next request. Only one that belongs to this
user or to root counts: /dev/shm is open to everybody.
"""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

from . import settings

VARIABLE = "MOLT_OFFLOAD"
_OFF = frozenset({"0", "off", "false", "no"})


def reason() -> str | None:
    """Why offloading is off; None while it is on."""
    wanted = settings.read()
    if not wanted.OFFLOAD:
        return f"{settings.SETTING}['OFFLOAD'] is False"
    if (value := os.environ.get(VARIABLE)) is not None and value.lower() in _OFF:
        return f"the environment has {VARIABLE}={value}"
    path = _path(wanted)
    try:
        owner = os.stat(path, follow_symlinks=False).st_uid
    except OSError:
        return None
    return f"{path} is there" if owner in (0, os.geteuid()) else None


def path() -> Path:
    """The file whose presence means off."""
    return Path(_path(settings.read()))


def turn_off() -> None:
    """Leaves the file. FileExistsError: it is there already, maybe another user's. PermissionError: nobody heeds it."""
    served = owner()
    if served is not None and os.geteuid() not in (0, served):
        text = f"the worker is user {served}'s, whose processes heed no file of user {os.geteuid()}; hint: do it as "
        raise PermissionError(errno.EPERM, f"{text}user {served} or as root")
    with open(path(), "x") as file:
        file.write(f"off since {time.strftime('%Y-%m-%dT%H:%M:%S%z')} by process {os.getpid()}\n")


def owner() -> int | None:
    """The user of the worker, and so of the processes that offload to it; None where there is none to go by."""
    wanted = settings.read()
    place = f"/dev/shm/{wanted.SHM.lstrip('/')}" if wanted.SHM else wanted.SOCKET
    try:
        return os.stat(place or "").st_uid
    except OSError:
        return None


def turn_on() -> bool:
    """Removes the file; whether it was there."""
    try:
        path().unlink()
    except FileNotFoundError:
        return False
    return True


def _path(wanted: settings.Settings) -> str:
    return f"/dev/shm/{wanted.SHM.lstrip('/')}.off" if wanted.SHM else f"{wanted.SOCKET}.off"
