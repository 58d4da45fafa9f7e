"""W3C trace context: the trace that a request belongs to travels with it into the worker's log."""

from __future__ import annotations

import sys


def context(traceparent: str | None = None) -> bytes:
    """A `traceparent` header for the request: the caller's own, else that of OpenTelemetry's current span, else none."""
    if traceparent is not None:
        return traceparent.encode()
    # Who has a span has imported the API; to import it here would cost everybody else.
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return b""
    current = trace.get_current_span().get_span_context()
    if not current.is_valid:
        return b""
    return b"00-%032x-%016x-%02x" % (current.trace_id, current.span_id, current.trace_flags)
