"""Sizes as the worker's flags take them: `256MiB`, `auto`, or bytes."""

from __future__ import annotations

import re

_UNITS = {"": 1, "b": 1, "k": 2**10, "kib": 2**10, "kb": 10**3, "m": 2**20, "mib": 2**20, "mb": 10**6}
_UNITS |= {"g": 2**30, "gib": 2**30, "gb": 10**9}


def bytes_of(size: str | int) -> int | None:
    """The bytes of a size; None: it is for the worker to say ("auto"). ValueError: it is no size."""
    if isinstance(size, int):
        return size
    if size.lower() == "auto":
        return None
    parts = re.fullmatch(r"(\d+)\s*([a-z]*)", size.strip().lower())
    if parts is None or parts[2] not in _UNITS:
        raise ValueError(f"{size!r} is no size; like 256MiB")
    return int(parts[1]) * _UNITS[parts[2]]
