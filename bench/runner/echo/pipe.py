"""The connection that `multiprocessing.Pipe()` gives, opened through its listener because the two processes are not kin."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Client, Listener
from pathlib import Path

from . import Ask


def serve(place: Path) -> None:
    """Answers what it reads."""
    with Listener(str(place), "AF_UNIX") as listener:
        while True:
            with listener.accept() as connection, suppress(EOFError):
                while True:
                    connection.send_bytes(connection.recv_bytes())


@contextmanager
def connected(place: Path) -> Iterator[Ask]:
    """One connection."""
    with Client(str(place), "AF_UNIX") as connection:

        def ask(payload: bytes) -> bytes:
            connection.send_bytes(payload)
            return connection.recv_bytes()

        yield ask
