"""OpenTelemetry: one client span for each offloaded request, where the project has `opentelemetry-api`.

The API alone is needed; without an SDK that the project configures, its spans cost next to nothing and go nowhere.
"""

from __future__ import annotations

from asyncio import CancelledError
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from ..errors import MoltCancelled, MoltError

try:
    from opentelemetry import trace
except ImportError:
    trace = None  # type: ignore[assignment]


class Untraced:
    """Takes what a span would take."""

    def answered(self, metrics: Any) -> None:
        """What the request cost in the worker."""


class Traced:
    """A request's span."""

    __slots__ = ("span",)

    def __init__(self, span: Any) -> None:
        self.span = span

    def answered(self, metrics: Any) -> None:
        """What the request cost in the worker."""
        of_tables = {} if metrics.table_age is None else {"molt.table_age_s": metrics.table_age}
        self.span.set_attributes(
            {
                **of_tables,
                "molt.outcome": "ok",
                "molt.queue_us": metrics.queue_us,
                "molt.run_us": metrics.exec_us,
                "molt.copied_bytes": metrics.copied_bytes,
                "molt.resent": metrics.resent,
            }
        )


_UNTRACED: AbstractContextManager[Untraced] = nullcontext(Untraced())


def request(entry: str) -> AbstractContextManager[Untraced | Traced]:
    """Around one request to `entry`, from its sending to its answer."""
    return _UNTRACED if trace is None else _traced(entry)


@contextmanager
def _traced(entry: str) -> Iterator[Traced]:
    tracer = trace.get_tracer("molt_accel")
    attributes = {"rpc.system": "molt", "rpc.method": entry}
    with tracer.start_as_current_span(
        f"molt {entry}",
        kind=trace.SpanKind.CLIENT,
        attributes=attributes,
        # An error's message names paths and processes: it is for the log.
        record_exception=False,
        set_status_on_exception=False,
    ) as span:
        try:
            yield Traced(span)
        except MoltError as error:
            span.set_attributes({"molt.outcome": error.outcome, "error.type": type(error).__name__})
            span.set_status(trace.Status(trace.StatusCode.ERROR, error.outcome))
            raise
        except CancelledError:  # of an async view whose HTTP client has hung up
            span.set_attributes({"molt.outcome": MoltCancelled.outcome, "error.type": MoltCancelled.__name__})
            span.set_status(trace.Status(trace.StatusCode.ERROR, MoltCancelled.outcome))
            raise
