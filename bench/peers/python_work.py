"""What a Python process elsewhere does for a request: the tuned order summary, as JSON bytes."""

import msgspec


def summary(body: bytes) -> bytes:
    """Raises OrderError."""
    from orders import tuned

    return msgspec.json.encode(tuned.summarize(body))
