"""Whether the HTTP client of a sync view has hung up, where the server lets a view see it.

Under gunicorn (sync and gthread) the request's own socket is at hand; waitress answers the question itself, if it is
started with `--channel-request-lookahead=1`. Elsewhere nobody can tell, and the deadline ends the work. Async views need
none of this: there the server cancels the view.
"""

from __future__ import annotations

import select
from collections.abc import Callable
from typing import Any

from django.http import HttpRequest

from . import settings

Watch = Callable[[], bool]
"""Whether nobody waits for the answer any more."""


def watch(request: HttpRequest) -> Watch | None:
    """How to ask for this request; None where there is no way, or the settings want none."""
    environ = getattr(request, "environ", None)
    if environ is None or not settings.read().CANCEL_ON_HANG_UP:
        return None
    own = environ.get("waitress.client_disconnected")
    if own is not None:
        return own
    socket = environ.get("gunicorn.socket")
    return None if socket is None else _of_socket(socket)


def _of_socket(socket: Any) -> Watch | None:
    try:
        descriptor = socket.fileno()
    except OSError:
        return None
    if descriptor < 0:
        return None

    def has_hung_up() -> bool:
        poll = select.poll()
        poll.register(descriptor, select.POLLRDHUP)  # reads nothing: a next request may lie there already
        return bool(poll.poll(0))

    return has_hung_up
