"""A Unix stream socket: what everybody would take."""

import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from . import Ask

MOST = 65536


def serve(place: Path) -> None:
    """Answers what it reads."""
    with closing(socket.socket(socket.AF_UNIX)) as listener:
        listener.bind(str(place))
        listener.listen()
        while True:
            connection, _ = listener.accept()
            with connection:
                while data := connection.recv(MOST):
                    connection.sendall(data)


@contextmanager
def connected(place: Path) -> Iterator[Ask]:
    """One connection."""
    with closing(socket.socket(socket.AF_UNIX)) as connection:
        connection.connect(str(place))

        def ask(payload: bytes) -> bytes:
            connection.sendall(payload)
            return connection.recv(MOST)

        yield ask
