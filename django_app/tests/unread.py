"""A request body that must not be read."""

from typing import NoReturn


class Unread:
    """Stands in for the server's input stream and fails the test that reads from it."""

    def read(self, *size: int) -> NoReturn:
        """Fails."""
        raise AssertionError("the request's body was read")

    readline = read
