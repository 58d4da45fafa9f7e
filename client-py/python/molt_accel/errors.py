"""The ways a request can fail: one exception for each outcome of spec/, all under `MoltError`."""

from __future__ import annotations

TYPE_CHECKING = False  # see molt_accel/__init__.py
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, ClassVar


class MoltError(Exception):
    """A request that did not end in an answer. `str(error)` is the message as the worker or the library worded it."""

    outcome: ClassVar[str] = "error"
    """The outcome's name, as in spec/ and in the counters of molt-shm-stat."""
    default_status: ClassVar[int] = 500
    """The HTTP status of this outcome."""

    def __init__(
        self,
        message: str,
        *,
        entry: str | None = None,
        status: int | None = None,
        details: Any = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.entry = entry
        """The entry that was called, where one was."""
        self.status = status
        """The HTTP status that the entry itself chose (404, 409, 422), or None."""
        self.details = details
        """What the entry says beside the message, decoded; None when it says nothing."""
        self.retry_after = retry_after
        """Seconds after which another try makes sense, or None."""

    @property
    def http_status(self) -> int:
        """The status for an HTTP answer: the entry's own choice, else the outcome's."""
        return self.status or self.default_status


class MoltInvalidInput(MoltError):
    """The entry refused its input, or a payload cannot be encoded. The same request fails again."""

    outcome = "invalid_input"
    default_status = 400


class MoltUnknownEntry(MoltError):
    """The worker exports no entry of that name."""

    outcome = "unknown_entry"
    default_status = 500


class MoltTooLarge(MoltError):
    """The request is over a limit of the worker, of the arena or of the settings."""

    outcome = "too_large"
    default_status = 413


class MoltCancelled(MoltError):
    """The request was cancelled before it ended."""

    outcome = "cancelled"
    default_status = 499


class MoltBusy(MoltError):
    """A queue, the arena or a quota is full just now; `retry_after` says when to come back."""

    outcome = "busy"
    default_status = 503


class MoltTimeout(MoltError):
    """The deadline passed. The worker has stopped, or never started, the work."""

    outcome = "timeout"
    default_status = 504


class MoltUnavailable(MoltError):
    """The request never reached an entry: no worker, or it left before it began. Safe to send again."""

    outcome = "unavailable"
    default_status = 503


class MoltWorkerLost(MoltError):
    """The worker died while the request ran; whether it took effect is unknown."""

    outcome = "worker_lost"
    default_status = 502


class MoltInternalError(MoltError):
    """The entry or the worker failed: a panic, or a result that does not fit."""

    outcome = "internal"
    default_status = 500


class MoltClosed(MoltError, ValueError):
    """A client or table was used after `close()`."""

    outcome = "closed"
    default_status = 500


# The numbers are those of the wire and of the C ABI (spec/, "outcomes").
BY_NUMBER: Mapping[int, type[MoltError]] = {
    1: MoltInvalidInput,
    2: MoltUnknownEntry,
    3: MoltTooLarge,
    4: MoltCancelled,
    5: MoltBusy,
    6: MoltTimeout,
    7: MoltUnavailable,
    8: MoltWorkerLost,
    9: MoltInternalError,
}
BUSY_RETRY_SECONDS = 1.0
"""What `retry_after` says of a Busy that names no time of its own."""


def error(
    number: int, message: str, *, entry: str | None = None, status: int = 0, details: bytes | None = None
) -> MoltError:
    """The exception for an outcome number; `details` is a MsgPack value as the worker wrote it."""
    kind = BY_NUMBER.get(number)
    if kind is None:
        return MoltInternalError(f"outcome {number} is unknown to this client: {message}", entry=entry)
    decoded = _decode(details) if details else None
    retry_after = decoded.get("retry_after") if isinstance(decoded, dict) else None
    if retry_after is None and kind is MoltBusy:
        retry_after = BUSY_RETRY_SECONDS
    return kind(message, entry=entry, status=status or None, details=decoded, retry_after=retry_after)


def _decode(details: bytes) -> Any:
    import msgpack

    try:
        return msgpack.unpackb(details, strict_map_key=False)
    except ValueError:  # the message still says what happened; a second error would hide it
        return None
