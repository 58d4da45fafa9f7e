"""gunicorn's own dirty workers: processes beside the web processes, kept warm, behind an arbiter of gunicorn's.

The app runs the tuned Python there. A fault comes back as a value: gunicorn would hand on an exception as text alone.
"""

from gunicorn.dirty import get_dirty_client
from gunicorn.dirty.app import DirtyApp
from orders.errors import OrderError

from . import python_work

APP = f"{__name__}:Orders"


class Orders(DirtyApp):
    """The order summary."""

    def summary(self, body: bytes) -> dict:
        """`answer`, or `fault`: message, index, field."""
        try:
            return {"answer": python_work.summary(body)}
        except OrderError as reason:
            return {"fault": [reason.message, reason.index, reason.field]}


def answer(body: bytes) -> bytes:
    """Through gunicorn's arbiter, by this thread's kept connection."""
    told = get_dirty_client().execute(APP, "summary", body)
    if "fault" in told:
        raise OrderError(*told["fault"])
    return told["answer"]
