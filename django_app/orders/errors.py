"""What is wrong with a request, for all three summaries."""

from __future__ import annotations


class OrderError(Exception):
    """The request is wrong: a message, and where it applies the line's index (from 0) and the field's name."""

    def __init__(self, message: str, index: int | None = None, field: str | None = None) -> None:
        super().__init__(message, index, field)
        self.message = message
        self.index = index
        self.field = field

    def as_dict(self) -> dict[str, str | int | None]:
        """The body of the 400 answer."""
        return {"error": self.message, "index": self.index, "field": self.field}


class DataMissing(Exception):
    """What the report is about was not made yet: one sentence with a hint."""
