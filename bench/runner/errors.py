"""What stops a measurement."""


class BenchError(Exception):
    """Something that a measurement needs is missing or went wrong: one sentence, and a hint where one helps."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message if hint is None else f"{message}; hint: {hint}")
