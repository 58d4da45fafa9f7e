"""pyzmq, REQ and REP over a Unix socket."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import zmq

from . import Ask


def serve(place: Path) -> None:
    """Answers what it reads."""
    with zmq.Context() as context, context.socket(zmq.REP) as socket:
        socket.bind(f"ipc://{place}")
        while True:
            socket.send(socket.recv())


@contextmanager
def connected(place: Path) -> Iterator[Ask]:
    """One socket."""
    with zmq.Context() as context, context.socket(zmq.REQ) as socket:
        socket.setsockopt(zmq.LINGER, 0)
        socket.connect(f"ipc://{place}")

        def ask(payload: bytes) -> bytes:
            socket.send(payload)
            return socket.recv()

        yield ask
