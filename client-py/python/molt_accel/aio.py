"""Event loops: requests whose answers arrive as a readable descriptor, so no thread waits for them.

A `Channel` belongs to one client and one running loop; only that loop's thread touches it. The loop's reader is what
keeps it alive: a loop that is closed or collected takes its channel along. The loop never waits: a worker is looked
for, and asked for a channel, in a thread, once for all requests that need it.
"""

from __future__ import annotations

import asyncio
import random
import weakref
from bisect import insort
from collections import deque
from collections.abc import MutableMapping
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from . import attaching, forks, reply
from ._lib import ERROR_BYTES, NULL, ffi, lib
from .attaching import FOUND, NOT_YET
from .deadline import NANO
from .errors import MoltClosed, MoltError, MoltTimeout, MoltUnavailable, MoltWorkerLost, error
from .request import NO_RESEND

if TYPE_CHECKING:
    from .attachment import Attachment
    from .deadline import Deadline
    from .reply import Reply
    from .request import Request

BATCH = 32
"""Answers taken from the library at once."""
SCAN_SECONDS = 0.1
"""While anything is in flight the channel looks by itself this often: a lost doorbell costs no more than that."""

CLOCK_SLACK_SECONDS = 0.002
"""The library's deadline begins a little after the loop's, whose clock ticks in milliseconds under uvloop."""

SUCCESSOR_SECONDS = 0.5
"""How long a request that lost its worker waits for a successor where nobody is known to start one."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.002, 0.05
_SLICE_SECONDS = 0.1
"""How long one look for a worker takes at most, and then the question for a channel."""
_LINE_SECONDS = 0.05
"""Who waits for room waits in line as long as the first in it has waited no longer."""
_GRACE_SECONDS = 0.02
"""A look ends by itself when the time of the request that began it is over: beyond that nothing is waited for."""

NO_BUDGET = (
    "; it was not sent again: the retry budget, a fifth of the calls and five a second, is used up; "
    "hint: the worker's log says what it dies of"
)
SENT_AGAIN = 1
"""Flag of a reply."""

_SUBMITTED, _NO_ROOM, _GONE = 0, 1, 3
_UNAVAILABLE, _WORKER_LOST = 7, 8
_IDEMPOTENT = b"\x81\xaaidempotent\xc3"  # {"idempotent": True}, as the library writes it


def channel_of_running_loop(client: Attachment, channels: MutableMapping[int, weakref.ref[Channel]]) -> Channel:
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


def _may_run_again(c: Any, flags: int, lost: bool) -> bool:
    """Whether a reply tells of a request that never ran, or that may run twice and was not lost before."""
    if flags & NO_RESEND:
        return False
    if c.outcome == _UNAVAILABLE:
        return True
    if c.outcome != _WORKER_LOST or lost or not c.details_len:
        return False
    return bool(ffi.unpack(c.details, c.details_len) == _IDEMPOTENT)


class Channel:
    """A `molt_loop`: its descriptor in the event loop's poller, and a future for each request in flight."""

    def __init__(self, client: Attachment, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.where = client.where
        self.closed = True
        self._generation = forks.generation
        self._outcome = ffi.new("int32_t *")
        self._text = ffi.new("char[]", ERROR_BYTES)
        self._id = ffi.new("uint64_t *")
        self._out = ffi.new("molt_reply[]", BATCH)
        self._waiting: dict[int, tuple[asyncio.Future[Reply], float]] = {}
        self._no_room: deque[tuple[asyncio.Future[None], float]] = deque()  # and since when it waits: that is the order
        self._looking: asyncio.Task[tuple[int, MoltError | None]] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self.client = client._unattached()  # keeps the session while a request is in flight
        self._pointer = lib.molt_loop_open(self.client, self._outcome, self._text, ERROR_BYTES)
        if self._pointer == NULL:
            raise self._error(None)
        self.closed = False
        self._fd = lib.molt_loop_fd(self._pointer)
        loop.add_reader(self._fd, self._poll)

    async def run(self, entry: str, arguments: Request, deadline: Deadline) -> Reply:
        """Sends a request and waits for its answer; any other outcome is raised.

        What a worker that left had not begun is sent again to its successor, what may be run twice once more, all
        before the same deadline.
        """
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
            self._check_open()
            left = deadline.left_ns(self.client) / NANO
            if not again or not left:
                # A request that may have run is not called one that never ran.
                raise first if first and isinstance(failure, MoltUnavailable) else failure
            if not lib.molt_may_send_again(self.client, isinstance(failure, MoltWorkerLost)):
                failure.args = (failure.message + NO_BUDGET,)
                raise failure
            if isinstance(failure, MoltWorkerLost):
                lost = True
                first = failure
            sent_again = True
            first = first or failure
            if pause:
                await asyncio.sleep(min(random.uniform(0.5, 1.5) * pause, left))
            pause = min(pause * 2, _LONGEST_PAUSE) or _FIRST_PAUSE

    async def _once(self, entry: str, arguments: Request, deadline: Deadline, absent: float) -> Reply:
        """One try: the reply, whatever its outcome. `absent`: how long to look for a worker where nobody starts one."""
        since = 0.0  # when it came into the line of those who wait for room
        while True:
            if self._no_room and not since and not self._is_overloaded():
                submitted = _NO_ROOM  # what came first goes first: new requests would take all the room that answers make
            else:
                # What was waited for before was part of the request's time.
                submitted = self._submit(entry, deadline.rest(self.client, arguments))
            if submitted == _SUBMITTED:
                break
            if submitted == _NO_ROOM:
                since = since or self.loop.time()
                await self._room(entry, deadline, since)
            else:
                await self.attach(deadline, absent)
        number = self._id[0]
        future = self.loop.create_future()
        look_at = deadline.ends(self.client) + CLOCK_SLACK_SECONDS
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
        self._check_open()
        result = lib.molt_loop_submit(self._pointer, *arguments, self._id, self._outcome, self._text, ERROR_BYTES)
        if result in (_SUBMITTED, _NO_ROOM, _GONE):
            return int(result)
        raise self._error(entry)

    def _check_open(self) -> None:
        if self.closed:
            raise MoltClosed(f"the client of {self.where} is closed. hint: attach() makes a new one")

    async def attach(self, deadline: Deadline, absent: float) -> None:
        """Waits until there is a channel to a worker that serves: to the deadline if one is about to, else only
        `absent` seconds."""
        ends = deadline.ends(self.client)
        absent_until = min(self.loop.time() + absent, ends)
        pause = _FIRST_PAUSE
        why: MoltError | None = None
        while True:
            began = self.loop.time()
            left = max(0.0, ends - began)
            looking = self._look(min(left, _SLICE_SECONDS))
            await asyncio.wait({looking}, timeout=left + _GRACE_SECONDS)
            self._check_open()
            found, why = looking.result() if looking.done() else (NOT_YET, why)
            if found == FOUND:
                return
            now = self.loop.time()
            if now >= (ends if found == NOT_YET else absent_until):
                raise self._no_channel(why, deadline.entry, left)
            if now - began < _SLICE_SECONDS / 2:
                # Every process of the machine looks for it: not all at the same moment.
                await asyncio.sleep(min(random.uniform(0.5, 1.5) * pause, max(0.0, ends - now)))
                pause = min(pause * 2, _LONGEST_PAUSE)

    def _no_channel(self, why: MoltError | None, entry: str | None, waited: float) -> MoltError:
        if why is None:
            return MoltTimeout(
                f"there was no channel to the worker of {self.where} within {waited:.3f} s; the request was never sent",
                entry=entry,
            )
        return type(why)(why.message, entry=entry, retry_after=why.retry_after)

    def _look(self, seconds: float) -> asyncio.Task[tuple[int, MoltError | None]]:
        """One look for a worker and a channel to it, shared by all requests of this loop that wait for it."""
        if self._looking is None or self._looking.done():
            self._looking = self.loop.create_task(self._seek(int(seconds * NANO)))
        return self._looking

    async def _seek(self, slice_ns: int) -> tuple[int, MoltError | None]:
        found, why, channel = await self.loop.run_in_executor(None, attaching.look, self.client, slice_ns)
        if channel is not None and not self.closed:
            ffi.gc(channel, None)
            if lib.molt_loop_adopt(self._pointer, channel, self._outcome, self._text, ERROR_BYTES):
                return NOT_YET, self._error(None)
        return found, why

    async def _room(self, entry: str, deadline: Deadline, since: float) -> None:
        """Waits until the channel has moved on, or the request's time is over. Whoever was woken and found no room takes
        its place in the line again, by `since`."""
        seconds = deadline.left_ns(self.client) / NANO
        future = self.loop.create_future()
        insort(self._no_room, (future, since), key=itemgetter(1))
        self._watch(0.0)
        try:
            async with asyncio.timeout(seconds):
                await future
        except TimeoutError:
            raise MoltTimeout(
                f"{entry}: the request ring of {self.where} had no room for {seconds:.3f} s, with "
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
        overloaded = self._is_overloaded()
        while count > 0 and self._no_room:
            future, _ = self._no_room.pop() if overloaded else self._no_room.popleft()
            if not future.done():
                future.set_result(None)
                count -= 1

    def _is_overloaded(self) -> bool:
        """Whether the first in the line has waited so long that more comes than can be answered. Then the last come first: in
        their turn all would be late, and nobody would be answered in time."""
        while self._no_room and self._no_room[0][0].done():
            self._no_room.popleft()
        return bool(self._no_room) and self.loop.time() - self._no_room[0][1] > _LINE_SECONDS

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

    def _error(self, entry: str | None) -> MoltError:
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
            if self._looking is not None:
                self._looking.cancel()  # who waits for it finds the channel closed
            for future, _ in (*self._waiting.values(), *self._no_room):
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
        self._pointer = self.client = None

    def _free(self) -> None:
        pointer, self._pointer = self._pointer, None
        if pointer is not None and self._generation == forks.generation:
            lib.molt_loop_close(pointer)
        self.client = None

    def __del__(self) -> None:
        if not self.closed:  # the loop went away and took its reader along
            self.closed = True
            self._free()


def _tick(kept: weakref.ref[Channel]) -> None:
    channel = kept()
    if channel is not None and not channel.closed:
        channel._tick()


_NOBODY: tuple[Any, float] = (None, 0.0)
