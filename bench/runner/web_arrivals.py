"""The same open loop at a web server: `python -m bench.runner.web_arrivals URL TOKEN BODY RATE SECONDS DEADLINE`.

The generator shares two cores with what it loads. For a request with the order summary's 259 KB k6 takes 0.9 ms of them,
this takes 0.2 ms. Connections are kept alive; a request that finds none idle opens one, so none waits for another, and
after twice the deadline it hangs up.
"""

import asyncio
import json
import sys
import time
from collections import deque
from functools import partial
from http import HTTPStatus
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from .arrivals import Seen, closed_loop, open_loop

USERS = 16
"""In flight when the capacity is measured."""
OUTCOMES: dict[int, str] = {
    HTTPStatus.SERVICE_UNAVAILABLE: "busy",
    HTTPStatus.TOO_MANY_REQUESTS: "busy",
    HTTPStatus.GATEWAY_TIMEOUT: "timeout",
}


class Connection(asyncio.Protocol):
    """One connection: its request's answer is awaited as a status."""

    def __init__(self) -> None:
        self.is_open = False
        self._transport: asyncio.Transport
        self._answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport, self.is_open = transport, True

    def connection_lost(self, reason: Exception | None) -> None:
        self.is_open = False
        if not self._answer.done():
            self._answer.set_exception(reason or ConnectionResetError("the server closed the connection"))

    async def ask(self, request: list[bytes]) -> int:
        """Sends the request and waits for the whole answer."""
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.writelines(request)
        return await self._answer

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, separator, body = self._received.partition(b"\r\n\r\n")
        if not separator:
            return
        fields = head.lower()
        if b"transfer-encoding: chunked" in fields:
            is_whole = body.endswith(b"0\r\n\r\n")
        else:
            is_whole = len(body) >= int(fields.partition(b"content-length:")[2].split(b"\r\n")[0])
        if is_whole:
            self._received = b""
            if b"connection: close" in fields:
                self.is_open = False
            if not self._answer.done():
                self._answer.set_result(int(head.split(b" ")[1]))

    def end(self) -> None:
        self.is_open = False
        self._transport.abort()


class Web:
    """The server, with the connections that are idle."""

    def __init__(self, url: SplitResult, token: str, body: bytes) -> None:
        self._host, self._port = url.hostname, url.port
        self._idle: deque[Connection] = deque()
        head = (
            f"POST {url.path} HTTP/1.1\r\nHost: {url.netloc}\r\nAuthorization: Bearer {token}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        self._request = [head.encode(), body]

    async def post(self) -> int:
        """The status of the answer."""
        connection = await self._connection()
        try:
            status = await connection.ask(self._request)
        except BaseException:
            connection.end()
            raise
        if connection.is_open:
            self._idle.append(connection)
        else:
            connection.end()
        return status

    async def _connection(self) -> Connection:
        while self._idle:
            if (kept := self._idle.pop()).is_open:  # the one used last: the server may have closed the others
                return kept
        _, opened = await asyncio.get_running_loop().create_connection(Connection, self._host, self._port)
        return opened


async def ask(web: Web, due: float, deadline: float, seen: Seen) -> None:
    """One request, whose client waits for twice the `deadline` from when it was due."""
    told = ""
    try:
        async with asyncio.timeout(max(0.0, due + 2 * deadline - time.monotonic())):
            status = await web.post()
        in_time = time.monotonic() - due <= deadline
        if status == HTTPStatus.OK:
            what = "in_time" if in_time else "late"
        else:
            what, told = OUTCOMES.get(status, "other"), f"HTTP {status}"
    except TimeoutError:
        what = "gave_up"
    except OSError as reason:
        what, told = "other", f"{type(reason).__name__}: {reason}"
    seen.add(what, time.monotonic() - due, due, told)


async def main(url: str, token: str, body: bytes, rate: float, seconds: float, deadline: float) -> None:
    """Runs one loop and prints what it has seen."""
    seen = Seen()
    one = partial(ask, Web(urlsplit(url), token, body), deadline=deadline, seen=seen)
    if rate:
        seen.behind = await open_loop(one, rate, seconds)
    else:
        await closed_loop(one, USERS, seconds)
    print(json.dumps(seen.told()))


if __name__ == "__main__":
    url, token, path, *numbers = sys.argv[1:]
    asyncio.run(main(url, token, Path(path).read_bytes(), *map(float, numbers)))
