"""Answers as they came: bytes, their codec, and what the request cost."""

from __future__ import annotations

TYPE_CHECKING = False  # see molt_accel/__init__.py
if TYPE_CHECKING:
    from typing import Any


class Metrics:
    """What one request cost in the worker."""

    __slots__ = (
        "alloc_bytes",
        "allocs",
        "copied_bytes",
        "exec_us",
        "plans",
        "queue_depth",
        "queue_us",
        "resent",
        "table_age",
    )

    queue_us: int
    """Microseconds between arrival and start."""
    exec_us: int
    """Microseconds that the entry ran."""
    allocs: int
    """Allocations that the entry made."""
    alloc_bytes: int
    """Bytes of those allocations."""
    copied_bytes: int
    """Table bytes that had to be copied because of their layout; 0 wherever molt placed the table."""
    queue_depth: int
    """Requests that waited when this one came."""
    plans: int
    """Plans that SQL made for this request; 0 where a kept one served, as from an entry's second request on."""
    resent: bool
    """Whether the request was sent a second time, after the first worker died."""
    table_age: float | None
    """Seconds since the rows were published of the oldest of the worker's own tables that the answer was read from (at most
    49 days); None where it was read from none."""

    def __init__(self, c: Any) -> None:
        """From a filled `molt_reply`."""
        self.queue_us = c.queue_us
        self.exec_us = c.exec_us
        self.allocs = c.allocs
        self.alloc_bytes = c.alloc_bytes
        self.copied_bytes = c.copied_bytes
        self.queue_depth = c.queue_depth
        self.plans = c.plans
        self.resent = bool(c.flags & 1)
        age = c.table_age
        self.table_age = (age - 1) / 1000 if age else None

    def __repr__(self) -> str:
        return f"Metrics({', '.join(f'{name}={getattr(self, name)}' for name in self.__slots__)})"


class Answer:
    """An answer that nobody has decoded yet."""

    __slots__ = ("body", "codec", "metrics")

    def __init__(self, codec: int, body: bytes, metrics: Metrics) -> None:
        self.codec = codec
        self.body = body
        self.metrics = metrics
