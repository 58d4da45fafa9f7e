"""Whether worker and web are of one deployment: the manifest that the worker serves against the one of the settings.

The worker tells the hash of its manifest's bytes (`health`); the web side has the file too, where `MOLT["EXPORTS"]`
names it. They differ when one of the two was deployed and the other was not. The system check molt.W004 and
`manage.py molt_status` say so, and each process that offloads looks once a minute, in a thread, and logs it once.
"""

from __future__ import annotations

import logging
import os
import time
from threading import Thread
from typing import Any

from ..errors import MoltError
from . import settings

logger = logging.getLogger("molt_accel.request")

LOOK_SECONDS = 60.0
"""Between two looks of a process."""
HEALTH_SECONDS = 1.0
"""What a worker has to answer."""

_look_at = 0.0
_looking: Thread | None = None
_known: str | None = None


def hash_of(data: bytes) -> str:
    """FNV-1a, 64 bits, in hex digits: what the worker computes."""
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return f"{value:016x}"


def of_settings() -> str | None:
    """The hash of the manifest that the settings name; None: they name none that can be read."""
    path = settings.read().EXPORTS
    if path is None:
        return None
    try:
        with open(path, "rb") as file:
            return hash_of(file.read())
    except OSError:
        return None


def difference(client: Any) -> str | None:
    """What is to be said where the worker's manifest is another one; None where it is the same, or nobody can tell.

    Raises MoltError when the worker does not answer.
    """
    own = of_settings()
    if own is None:
        return None
    health = client.call("health", None, timeout=HEALTH_SECONDS)
    if "manifest" not in health or health["manifest"] == own:
        return None
    served = f"one whose hash is {health['manifest']}" if health["manifest"] else "none"
    return (
        f"the worker of {client.where} (process {health['pid']}) serves another manifest than the settings name: "
        f"{os.fspath(settings.read().EXPORTS or '')} has the hash {own}, the worker serves {served}"
    )


HINT = "deploy web and worker together; a new manifest takes over by `systemctl reload`, or `molt_worker --replace`"


def look(client: Any) -> None:
    """Looks in a thread, if it is time; the caller waits for nothing."""
    global _look_at, _looking
    now = time.monotonic()
    if now < _look_at or (_looking is not None and _looking.is_alive()):  # one at a time: they compare with the last
        return
    if settings.read().EXPORTS is None or not hasattr(client, "where"):  # a test's stand-in
        return
    _look_at = now + LOOK_SECONDS
    _looking = Thread(target=_look, args=(client,), name="molt-skew", daemon=True)
    _looking.start()


def known() -> bool:
    """Whether this process knows of a difference."""
    return _known is not None


def _look(client: Any) -> None:
    global _known
    try:
        found = difference(client)
    except MoltError:  # the requests themselves say that
        return
    if found != _known:
        _known = found
        if found is None:
            logger.info("the worker of %s serves the manifest of the settings again", client.where)
        else:
            logger.warning("%s. hint: %s", found, HINT)
