"""Waiting for a condition, with a deadline: what these tests do instead of sleeping for a guessed time."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(condition: Callable[[], T], what: str, seconds: float = 20) -> T:
    """Polls `condition` until it gives something true and returns that; fails after `seconds`, saying `what` it was."""
    deadline = time.monotonic() + seconds
    while not (seen := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what} (last seen: {seen!r})")
        time.sleep(0.01)
    return seen
