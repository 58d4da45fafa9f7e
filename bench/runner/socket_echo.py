"""The rival of a call to `echo`: a Python process that sends back what it gets over a Unix socket.

    python -m bench.runner.socket_echo PATH

Listens at PATH, serves one connection, ends with it.
"""

import socket
import sys


def main(path: str) -> None:
    """Serves one connection."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(1)
        connection, _ = listener.accept()
    with connection:
        while message := connection.recv(65536):
            connection.sendall(message)


if __name__ == "__main__":
    main(sys.argv[1])
