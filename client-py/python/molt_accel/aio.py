"""Event loops: requests whose answers arrive as a readable descriptor, so no thread waits for them.

A `Channel` belongs to one client and one running loop; only that loop's thread touches it. The loop's reader is what
keeps it alive: a loop that is closed or collected takes its channel along.
"""

from __future__ import annotations

import asyncio
import random
import weakref
from collections import deque
from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any

from . import forks, reply
from ._lib import ERROR_BYTES, NULL, Failure, ffi, lib
from .errors import MoltClosed, MoltError, MoltTimeout, MoltUnavailable, MoltWorkerLost, error
from .request import NO_RESEND

if TYPE_CHECKING:
    from .client import Client
    from .reply import Reply
    from .request import Request

BATCH = 32
"""Answers taken from the library at once."""
SCAN_SECONDS = 0.1
"""While anything is in flight the channel looks by itself this often: a lost doorbell costs no more than that."""
ROOM_SECONDS = 5.0
"""How long a request without a time-out of its own waits for room in the ring."""

CLOCK_SLACK_SECONDS = 0.002
"""The library's deadline begins a little after the loop's, whose clock ticks in milliseconds under uvloop."""

SUCCESSOR_SECONDS = 0.5
"""How long a request that lost its worker waits for a successor where nobody is known to start one."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.002, 0.05

NO_BUDGET = (
    "; it was not sent again: the retry budget, a fifth of the calls and five a second, is used up; "
    "hint: the worker's log says what it dies of"
)
SENT_AGAIN = 1
"""Flag of a reply."""

_SUBMITTED, _NO_ROOM, _GONE = 0, 1, 3
_FOUND, _NOT_YET = 0, 1
_UNAVAILABLE, _WORKER_LOST = 7, 8
_IDEMPOTENT = b"\x81\xaaidempotent\xc3"  # {"idempotent": True}, as the library writes it


def channel_of_running_loop(client: Client, channels: MutableMapping[int, weakref.ref[Channel]]) -> Channel:
    """The channel of `client` in the running loop; opened at the first request from it."""
    loop = asyncio.get_running_loop()
    kept = channels.get(id(loop))
    channel = kept() if kept is not None else None
    if channel is not None and channel.loop is loop and not channel.closed:
        return channel
    for key, kept in list(channels.items()):  # an id is used again once its loop is gone
        old = kept()
        if old is None or old.loop.is_closed():
            channels.pop(key, None)
            if old is not None:
                old.close()
    channel = Channel(client, loop)
    channels[id(loop)] = weakref.ref(channel)
    return channel


def _within(arguments: Request, deadline: float, now: float) -> Request:
    """The same request with what is left of its time."""
    return (*arguments[:-1], max(1, int((deadline - now) * 1e9))) if deadline else arguments


def _may_run_again(c: Any, flags: int, lost: bool) -> bool:
    """Whether a reply tells of a request that never ran, or that may run twice and was not lost before."""
    if flags & NO_RESEND:
        return False
    if c.outcome == _UNAVAILABLE:
        return True
    if c.outcome != _WORKER_LOST or lost or not c.details_len:
        return False
    return bool(ffi.unpack(c.details, c.details_len) == _IDEMPOTENT)


def _reattach(session: Any) -> tuple[int, MoltError | None]:
    """Looks for the worker's successor for up to a tenth of a second. In a thread: the event loop runs on meanwhile."""
    failure = Failure()
    found = lib.molt_reattach(session, 0, 1000, *failure.args)
    return found, failure.error() if found > _NOT_YET else None


class Channel:
    """A `molt_loop`: its descriptor in the event loop's poller, and a future for each request in flight."""

    def __init__(self, client: Client, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.where = client.where
        self.closed = True
        self._generation = forks.generation
        self._outcome = ffi.new("int32_t *")
        self._text = ffi.new("char[]", ERROR_BYTES)
        self._id = ffi.new("uint64_t *")
        self._out = ffi.new("molt_reply[]", BATCH)
        self._waiting: dict[int, tuple[asyncio.Future[Reply], float]] = {}
        self._no_room: deque[asyncio.Future[None]] = deque()
        self._looking: asyncio.Future[tuple[int, MoltError | None]] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._session = client.session()  # keeps the session while a request is in flight
        self._pointer = lib.molt_loop_open(self._session, self._outcome, self._text, ERROR_BYTES)
        if self._pointer == NULL:
            raise self._error(None)
        self.closed = False
        self._fd = lib.molt_loop_fd(self._pointer)
        loop.add_reader(self._fd, self._poll)

    async def run(self, entry: str, arguments: Request) -> Reply:
        """Sends a request and waits for its answer; any other outcome is raised.

        What a worker that left had not begun is sent again to its successor, what may be run twice once more, all within
        the same time.
        """
        timeout_ns = arguments[-1]
        deadline = self.loop.time() + timeout_ns / 1e9 if timeout_ns > 0 else 0.0
        first: MoltError | None = None  # what the caller is told if sending again comes to nothing
        lost = sent_again = False
        pause = 0.0
        while True:
            try:
                reply = await self._once(entry, arguments, deadline, SUCCESSOR_SECONDS if first else 0.0)
            except MoltUnavailable as unavailable:
                if first is None:
                    raise
                first.add_note(f"sent again: {unavailable}")
                raise first from None
            if not reply.c.outcome:
                if sent_again:
                    reply.c.flags |= SENT_AGAIN
                return reply
            again = _may_run_again(reply.c, arguments[-2], lost)
            failure = reply.error(entry)
            if not again or (deadline and self.loop.time() >= deadline):
                # A request that may have run is not called one that never ran.
                raise first if first and isinstance(failure, MoltUnavailable) else failure
            if not lib.molt_may_send_again(self._session, isinstance(failure, MoltWorkerLost)):
                failure.args = (failure.message + NO_BUDGET,)
                raise failure
            if isinstance(failure, MoltWorkerLost):
                lost = True
                first = failure
            sent_again = True
            first = first or failure
            if pause:
                await asyncio.sleep(random.uniform(0.5, 1.5) * pause)
            pause = min(pause * 2, _LONGEST_PAUSE) or _FIRST_PAUSE
            arguments = _within(arguments, deadline, self.loop.time())

    async def _once(self, entry: str, arguments: Request, deadline: float, absent: float) -> Reply:
        """One try: the reply, whatever its outcome. `absent`: how long to look for a worker where nobody starts one."""
        while (submitted := self._submit(entry, arguments)) != _SUBMITTED:
            if submitted == _NO_ROOM:
                await self._room(entry, deadline)
            else:
                await self._successor(entry, deadline, absent)
            arguments = _within(arguments, deadline, self.loop.time())  # the wait was part of the request's time
        number = self._id[0]
        future = self.loop.create_future()
        look_at = deadline + CLOCK_SLACK_SECONDS if deadline else 0.0
        self._waiting[number] = future, look_at
        self._watch(look_at)
        try:
            reply = await future
        except BaseException:
            # The answer may have come in the same turn of the loop as the cancellation: then it is dropped with the
            # future, else the worker is told.
            if self._waiting.pop(number, None) is not None and not self.closed:
                lib.molt_loop_cancel(self._pointer, number)
            raise
        return reply

    def _submit(self, entry: str, arguments: Request) -> int:
        if self.closed:
            raise MoltClosed(f"the client of {self.where} is closed. hint: attach() makes a new one")
        result = lib.molt_loop_submit(self._pointer, *arguments, self._id, self._outcome, self._text, ERROR_BYTES)
        if result in (_SUBMITTED, _NO_ROOM, _GONE):
            return int(result)
        raise self._error(entry)

    async def _successor(self, entry: str, deadline: float, absent: float) -> None:
        """Waits until there is a worker: as long as the request has if one is about to serve, else only `absent`."""
        gone = self._error(entry)
        now = self.loop.time()
        longest = deadline or now + ROOM_SECONDS
        absent_until = min(now + absent, longest)
        pause = _FIRST_PAUSE
        while True:
            found, failure = await asyncio.shield(self._look())
            if found == _FOUND:
                return
            now = self.loop.time()
            if now >= (longest if found == _NOT_YET else absent_until):
                raise failure or gone
            if found != _NOT_YET:  # every process of the machine looks for it: not all at the same moment
                await asyncio.sleep(random.uniform(0.5, 1.5) * pause)
                pause = min(pause * 2, _LONGEST_PAUSE)

    def _look(self) -> asyncio.Future[tuple[int, MoltError | None]]:
        """One look for the successor, shared by all requests of this loop that wait for it."""
        if self._looking is None or self._looking.done():
            self._looking = self.loop.run_in_executor(None, _reattach, self._session)
        return self._looking

    async def _room(self, entry: str, deadline: float) -> None:
        """Waits until the channel has moved on, or the request's time is over."""
        now = self.loop.time()
        seconds = deadline - now if deadline else ROOM_SECONDS
        future = self.loop.create_future()
        self._no_room.append(future)
        self._watch(0.0)
        try:
            async with asyncio.timeout(seconds):
                await future
        except TimeoutError:
            raise MoltTimeout(
                f"{entry}: the request ring of {self.where} had no room for {max(seconds, 0.0):.3f} s, with "
                f"{len(self._waiting)} requests of this event loop in flight; the request was never sent",
                entry=entry,
            ) from None

    def _poll(self) -> None:
        """Hands ready answers to their futures. Runs when the descriptor is readable and when the timer fires."""
        if self.closed:
            return
        out = self._out
        count = BATCH
        moved = 0
        while count == BATCH:
            count = lib.molt_loop_poll(self._pointer, out, BATCH)
            moved += count
            for index in range(count):
                c = out[index]
                future, _ = self._waiting.pop(c.id, _NOBODY)
                kept = reply.take()
                kept.c[0] = c  # the batch is written again by the next poll; what `hold` keeps goes along
                if future is None or future.done():
                    kept.done()
                else:
                    future.set_result(kept)
        if self._no_room:
            self._wake(moved)

    def _wake(self, count: int) -> None:
        """Lets as many try again as answers made room for; waking all of them would cost their square."""
        while count > 0 and self._no_room:
            future = self._no_room.popleft()
            if not future.done():
                future.set_result(None)
                count -= 1

    def _watch(self, deadline: float) -> None:
        """Keeps one timer running while anything waits: at the next scan, or exactly at an earlier deadline."""
        at = self.loop.time() + SCAN_SECONDS
        if deadline and deadline < at:
            at = deadline
        if self._timer is not None:
            if self._timer_at <= at:
                return
            self._timer.cancel()
        self._timer_at = at
        # By weak reference: a timer of a loop that was closed meanwhile must not keep the channel.
        self._timer = self.loop.call_at(at, _tick, weakref.ref(self))

    def _tick(self) -> None:
        self._timer = None
        self._poll()
        self._wake(1)  # also without progress: room may have come from elsewhere
        if self._waiting or self._no_room:
            now = self.loop.time()
            self._watch(min((at for _, at in self._waiting.values() if at > now), default=0.0))

    def _error(self, entry: str | None) -> Exception:
        return error(self._outcome[0], ffi.string(self._text).decode("utf-8", "replace"), entry=entry)

    # -- life ----------------------------------------------------------------------------------------------------

    def close_soon(self) -> None:
        """Closes from whichever thread: at once in the loop's own, else as soon as the loop comes by."""
        try:
            running = asyncio.get_running_loop()
        except RuntimeError:
            running = None
        if running is self.loop or self.loop.is_closed() or not self.loop.is_running():
            self.close()
        else:
            self.loop.call_soon_threadsafe(self.close)

    def close(self) -> None:
        """Ends what is in flight with `MoltClosed` and gives the channel back."""
        if self.closed:
            return
        self.closed = True
        if self._timer is not None:
            self._timer.cancel()
        if not self.loop.is_closed():
            self.loop.remove_reader(self._fd)
            waiting: list[asyncio.Future[Any]] = [*(future for future, _ in self._waiting.values()), *self._no_room]
            for future in waiting:
                if not future.done():
                    future.set_exception(
                        MoltClosed(f"the client of {self.where} was closed while the request was in flight")
                    )
        self._waiting.clear()
        self._no_room.clear()
        self._free()

    def forget(self) -> None:
        """In a forked child: the channel is the parent's."""
        self.closed = True
        self._pointer = self._session = None

    def _free(self) -> None:
        pointer, self._pointer = self._pointer, None
        if pointer is not None and self._generation == forks.generation:
            lib.molt_loop_close(pointer)
        self._session = None

    def __del__(self) -> None:
        if not self.closed:  # the loop went away and took its reader along
            self.closed = True
            self._free()


def _tick(kept: weakref.ref[Channel]) -> None:
    channel = kept()
    if channel is not None and not channel.closed:
        channel._tick()


_NOBODY: tuple[Any, float] = (None, 0.0)
