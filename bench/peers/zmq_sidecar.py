"""Python processes beside Django, asked over ZeroMQ: the tuned order summary runs there, each process behind a socket of its own.

`python -m bench.peers.zmq_sidecar SOCKET` is one of them. Every thread of a web process keeps one REQ socket that is connected to
all of them and asks them in turn: no broker stands in between.
"""

import os
import sys
import threading

import msgspec
import zmq
from orders.errors import OrderError

from . import python_work

mine = threading.local()
GOOD, FAULT = b"answer", b"fault"


def asked() -> zmq.Socket:
    """This thread's, kept."""
    if not hasattr(mine, "socket"):
        mine.socket = zmq.Context.instance().socket(zmq.REQ)
        for place in os.environ["MOLT_BENCH_ZMQ"].split():
            mine.socket.connect(place)
    return mine.socket


def answer(body: bytes) -> bytes:
    """The body goes there, and what comes back is the finished JSON or what is wrong with the request."""
    socket = asked()
    socket.send(body, copy=False)
    kind, told = socket.recv_multipart()
    if kind == FAULT:
        raise OrderError(*msgspec.json.decode(told))
    return told


def main(place: str) -> None:
    """Serves until the process ends."""
    socket = zmq.Context.instance().socket(zmq.REP)
    socket.bind(f"ipc://{place}")
    while True:
        body = socket.recv(copy=False)
        try:
            told = [GOOD, python_work.summary(body.bytes)]
        except OrderError as reason:
            told = [FAULT, msgspec.json.encode([reason.message, reason.index, reason.field])]
        socket.send_multipart(told)


if __name__ == "__main__":
    main(sys.argv[1])
