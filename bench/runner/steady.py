"""A constant arrival rate for a long time: `python -m bench.runner.steady SETTINGS` (a JSON file, see `Settings`).

Requests are sent when they are due, by the kernel's timer, and each time counts from then. For every request it is kept when
it was due, sent and answered, how many were in flight, and what the worker says of it: all in memory, written when the load
is over. With a rate of 0 the loop is closed, which shows what can be answered at most. Python with one connection a request
in flight costs less of the shared cores than k6, which also has no room for a million records.
"""

import asyncio
import ctypes
import gc
import json
import os
import struct
import sys
import time
from array import array
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from pathlib import Path

ENTRY = "order_summary"
WARM_REQUESTS = 200
CLOSED_IN_FLIGHT = 16
LAST_SECONDS = 30.0
"""How long the answers to the last requests may take."""


@dataclass(frozen=True)
class Settings:
    """One load. Either `shm` or `port` says who is asked."""

    body: str
    out: str
    """A folder for the records."""
    rate: float
    seconds: float
    shm: str | None = None
    host: str = ""
    port: int = 0
    path: str = ""
    token: str = ""

    def write(self, place: Path) -> Path:
        """As the file that this program reads."""
        place.write_text(json.dumps(asdict(self)))
        return place


@dataclass(frozen=True)
class Cost:
    """What the worker says a request has cost."""

    queue_us: float
    exec_us: float
    plans: int


Ask = Callable[[], Awaitable[Cost]]

COLUMNS = {"due": "d", "sent": "d", "done": "d", "in_flight": "I", "queue_us": "d", "exec_us": "d", "plans": "I"}
"""What is kept of a request, a file for each; times are CLOCK_MONOTONIC seconds."""


class Records:
    """All requests, in the order of their answers."""

    def __init__(self) -> None:
        self.columns = {name: array(kind) for name, kind in COLUMNS.items()}
        self.errors: dict[str, int] = {}
        self.flying = 0

    def add(self, *values: float) -> None:
        """One answer; the values are COLUMNS in order."""
        for column, value in zip(self.columns.values(), values, strict=True):
            column.append(value)

    def write(self, folder: Path) -> None:
        """A file a column."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, column in self.columns.items():
            with (folder / name).open("wb") as out:
                column.tofile(out)


def read(folder: Path) -> dict[str, array]:
    """The columns that `Records.write` has written."""
    found = {}
    for name, kind in COLUMNS.items():
        found[name] = array(kind)
        found[name].frombytes((folder / name).read_bytes())
    return found


async def one(ask: Ask, due: float, records: Records) -> None:
    """One request."""
    records.flying += 1
    flying, sent = records.flying, time.monotonic()
    try:
        cost = await ask()
        records.add(due, sent, time.monotonic(), flying, cost.queue_us, cost.exec_us, cost.plans)
    except (OSError, RuntimeError) as reason:
        what = f"{type(reason).__name__}: {reason}"
        records.errors[what] = records.errors.get(what, 0) + 1
    finally:
        records.flying -= 1


class Timer:
    """The kernel's periodic timer as something that an event loop can wait for: asyncio's own clock ticks in milliseconds."""

    MONOTONIC, NONBLOCK, ABSOLUTE = 1, os.O_NONBLOCK, 1

    def __init__(self, first: float, period: float) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self.number = libc.timerfd_create(self.MONOTONIC, self.NONBLOCK)
        parts = [part for at in (period, first) for part in (int(at), int(at % 1 * 1e9))]
        if self.number < 0 or libc.timerfd_settime(self.number, self.ABSOLUTE, struct.pack("4q", *parts), None):
            raise OSError(ctypes.get_errno(), f"no timer of {period} s")

    def expired(self) -> int:
        """How often since this was asked last."""
        try:
            return struct.unpack("Q", os.read(self.number, 8))[0]
        except BlockingIOError:
            return 0


async def open_loop(ask: Ask, rate: float, seconds: float, records: Records) -> None:
    """Sends `rate` requests a second."""
    loop, wanted = asyncio.get_running_loop(), max(1, int(rate * seconds))
    first, period = time.monotonic() + 0.05, round(1e9 / rate) / 1e9
    timer, asked, sent, over = Timer(first, period), set(), 0, loop.create_future()

    def due() -> None:
        nonlocal sent
        for _ in range(min(timer.expired(), wanted - sent)):
            task = loop.create_task(one(ask, first + sent * period, records))
            asked.add(task)
            task.add_done_callback(asked.discard)
            sent += 1
        if sent == wanted and not over.done():
            over.set_result(None)

    loop.add_reader(timer.number, due)
    await over
    loop.remove_reader(timer.number)
    os.close(timer.number)
    if asked:
        await asyncio.wait(asked, timeout=LAST_SECONDS)


async def closed_loop(ask: Ask, seconds: float, records: Records) -> None:
    """Sends as many as are answered."""
    end = time.monotonic() + seconds

    async def user() -> None:
        while (now := time.monotonic()) < end:
            await one(ask, now, records)

    await asyncio.gather(*(user() for _ in range(CLOSED_IN_FLIGHT)))


class Connection(asyncio.Protocol):
    """A kept HTTP/1.1 connection with one request at a time."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.answered: asyncio.Future[bytes] | None = None
        self.got = bytearray()
        self.wanted = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def connection_lost(self, reason: Exception | None) -> None:
        self.transport = None
        if self.answered is not None and not self.answered.done():
            self.answered.set_exception(ConnectionResetError("the server has closed the connection"))

    def data_received(self, data: bytes) -> None:
        self.got += data
        if not self.wanted and (end := self.got.find(b"\r\n\r\n")) >= 0:
            self.wanted = end + 4 + int(field(bytes(self.got[: end + 2]), b"content-length") or 0)
        if self.wanted and len(self.got) >= self.wanted and self.answered is not None and not self.answered.done():
            answer, self.got, self.wanted = bytes(self.got[: self.wanted]), bytearray(), 0
            self.answered.set_result(answer)

    async def ask(self, request: bytes) -> bytes:
        """Sends a request and gives the answer, head and body."""
        assert self.transport is not None
        self.answered = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return await self.answered


def field(head: bytes, name: bytes) -> bytes | None:
    """A header's value."""
    start = head.lower().find(b"\r\n" + name + b":")
    if start < 0:
        return None
    start += len(name) + 3
    return head[start : head.index(b"\r\n", start)].strip()


class Http:
    """An endpoint, asked on connections that are kept: as many as there are requests in flight."""

    def __init__(self, settings: Settings, body: bytes) -> None:
        self._where = settings.host, settings.port
        head = (
            f"POST {settings.path} HTTP/1.1\r\nHost: {settings.host}:{settings.port}\r\nContent-Type: application/json\r\n"
            f"Authorization: Bearer {settings.token}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        self._request = head.encode() + body
        self._idle: deque[Connection] = deque()

    async def ask(self) -> Cost:
        """One request. A server closes idle connections when it likes: what met that is sent again on a new one."""
        while True:
            kept = self._idle.popleft() if self._idle else None
            if kept is not None and kept.transport is None:
                continue
            connection = kept or await self._new()
            try:
                answer = await connection.ask(self._request)
            except ConnectionResetError:
                if kept is None:
                    raise
                continue
            self._idle.append(connection)
            return cost(answer)

    async def _new(self) -> Connection:
        _, connection = await asyncio.get_running_loop().create_connection(Connection, *self._where)
        return connection


def cost(answer: bytes) -> Cost:
    """What the `Server-Timing` of an answer says, in milliseconds there. RuntimeError for every status but 200."""
    head = answer[: answer.index(b"\r\n\r\n") + 2]
    if not head.startswith(b"HTTP/1.1 200"):
        raise RuntimeError(head.split(b"\r\n", 1)[0].decode(errors="replace"))
    told = {"molt-queue": 0.0, "molt-run": 0.0}
    for part in (field(head, b"server-timing") or b"").decode().split(","):
        name, _, rest = part.strip().partition(";")
        if name in told and "dur=" in rest:
            told[name] = float(rest.partition("dur=")[2].split(";")[0])
    return Cost(told["molt-queue"] * 1000, told["molt-run"] * 1000, 0)


class Library:
    """The client library."""

    def __init__(self, client, body: bytes) -> None:
        from molt_accel import codecs

        self._client, self._body, self._codec = client, body, codecs.JSON

    async def ask(self) -> Cost:
        """One request."""
        answer = await self._client.aexchange(ENTRY, self._body, self._codec, self._codec, timeout=LAST_SECONDS)
        return Cost(answer.metrics.queue_us, answer.metrics.exec_us, answer.metrics.plans)


class Pauses:
    """The collector's pauses in this process: beginning and length, seconds."""

    def __init__(self) -> None:
        self.seen: list[tuple[float, float]] = []
        self._began = 0.0
        gc.callbacks.append(self)

    def __call__(self, phase: str, info: dict) -> None:
        if phase == "start":
            self._began = time.monotonic()
        else:
            self.seen.append((self._began, time.monotonic() - self._began))


async def main(settings: Settings) -> None:
    """Warms up, runs one loop, writes the records and prints what the runner wants to know."""
    import molt_accel

    body = Path(settings.body).read_bytes()
    client = molt_accel.Client(settings.shm) if settings.shm else None
    ask = (Http(settings, body) if client is None else Library(client, body)).ask
    for _ in range(WARM_REQUESTS // CLOSED_IN_FLIGHT):
        await asyncio.gather(*(ask() for _ in range(CLOSED_IN_FLIGHT)))
    records, pauses = Records(), Pauses()
    gc.collect()
    gc.freeze()  # what is here now stays: the collector need not walk it during the load
    began = time.monotonic()
    if settings.rate:
        await open_loop(ask, settings.rate, settings.seconds, records)
    else:
        await closed_loop(ask, settings.seconds, records)
    told = {
        "began": began, "seconds": time.monotonic() - began, "errors": records.errors, "unanswered": records.flying,
        "pauses": pauses.seen, "cpu_s": time.process_time(),
    }  # fmt: skip
    records.write(Path(settings.out))
    print(json.dumps(told))
    if client is not None:
        await client.aclose()


if __name__ == "__main__":
    asyncio.run(main(Settings(**json.loads(Path(sys.argv[1]).read_text()))))
