"""An open loop at the client library: `python -m bench.runner.arrivals SHM BODY RATE SECONDS DEADLINE [RECORDS]`; prints JSON.

Requests are sent when they are due, however long the earlier ones take, and each time is counted from when the
request was due. With a rate of 0 the loop is closed: 32 requests are always in flight, which shows what can be
answered at most. RECORDS is a file for each request by itself.
"""

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import molt_accel
from molt_accel import codecs

from . import percentile

Ask = Callable[[float], Awaitable[None]]
"""Sends the request that was due at that moment, and waits for what becomes of it."""

ENTRY = "order_summary"
IN_FLIGHT = 32
MARGIN = 0.1
"""Of the time that is left."""
FIGURES = {"p50_ms": 0.5, "p99_ms": 0.99, "p999_ms": 0.999}


class Seen:
    """What became of the requests. Accepted: all but those that were told at once to come back later."""

    def __init__(self) -> None:
        self.counts = dict.fromkeys(("in_time", "late", "busy", "timeout", "gave_up", "other"), 0)
        self.accepted: list[float] = []
        self.records: list[tuple[float, float, str]] = []
        self.behind: list[float] = []
        """How late the generator itself was, in seconds."""

    def add(self, what: str, took: float, due: float, said: str = "") -> None:
        """One request, its time in seconds, when it was due, and what the library said."""
        self.counts[what] += 1
        self.records.append((due, took, said or what))
        if what != "busy":
            self.accepted.append(took)

    def told(self) -> dict[str, float | None]:
        """Counts, and of those that were accepted the longest and the percentiles that they carry, in milliseconds."""
        ordered = sorted(took * 1000 for took in self.accepted)
        at = {name: percentile.at(ordered, share) for name, share in FIGURES.items()}
        behind = sorted(self.behind)
        return {
            "sent": sum(self.counts.values()),
            **self.counts,
            **at,
            "max_ms": ordered[-1] if ordered else None,
            "behind_p99_ms": behind[int(len(behind) * 0.99)] * 1000 if behind else 0.0,
        }


async def ask(client: molt_accel.Client, body: bytes, due: float, deadline: float, seen: Seen) -> None:
    """One request, which has until `deadline` seconds after it was due. It asks for a little less than what is left of
    them: that its time is over it is told when the event loop comes by."""
    left = due + deadline - time.monotonic()
    if left <= 0:
        seen.add("timeout", time.monotonic() - due, due)  # its time was over before it could be sent
        return
    said = ""
    try:
        await client.aexchange(ENTRY, body, codecs.JSON, codecs.JSON, timeout=left * (1 - MARGIN))
        took = time.monotonic() - due
        what = "in_time" if took <= deadline else "late"
    except molt_accel.MoltBusy:
        what = "busy"
    except molt_accel.MoltTimeout:
        what = "timeout"
    except molt_accel.MoltError as reason:
        what, said = "other", f"{type(reason).__name__}: {reason}"
    seen.add(what, time.monotonic() - due, due, said)


async def open_loop(ask: Ask, rate: float, seconds: float) -> list[float]:
    """Sends `rate` requests a second; how late each was begun, in seconds."""
    asked: set[asyncio.Task[None]] = set()
    behind = []
    began = time.monotonic() + 0.05
    for number in range(max(1, int(rate * seconds))):
        due = began + number / rate
        if (early := due - time.monotonic()) > 0:
            await asyncio.sleep(early)
        elif number % 16 == 0:
            await asyncio.sleep(0)  # behind: whoever has an answer gets a turn all the same
        behind.append(max(0.0, time.monotonic() - due))
        task = asyncio.create_task(ask(due))
        asked.add(task)
        task.add_done_callback(asked.discard)
    await asyncio.gather(*asked)
    return behind


async def closed_loop(ask: Ask, users: int, seconds: float) -> None:
    """Sends as many as are answered."""
    end = time.monotonic() + seconds

    async def user() -> None:
        while (now := time.monotonic()) < end:
            await ask(now)

    await asyncio.gather(*(user() for _ in range(users)))


async def main(shm: str, body: bytes, rate: float, seconds: float, deadline: float, records: Path | None) -> None:
    """Runs one loop and prints what it has seen."""
    async with molt_accel.Client(shm) as client:
        for _ in range(20):
            await client.aexchange(ENTRY, body, codecs.JSON, codecs.JSON, timeout=30.0)
        seen = Seen()
        one = partial(ask, client, body, deadline=deadline, seen=seen)
        if rate:
            seen.behind = await open_loop(one, rate, seconds)
        else:
            await closed_loop(one, IN_FLIGHT, seconds)
        if records is not None:
            to_wall = time.time() - time.monotonic()  # the runner's marks are by the wall clock, as k6's are
            told = [(round(due + to_wall, 6), round(took * 1000, 3), said) for due, took, said in seen.records]
            records.write_text(json.dumps(told))
        print(json.dumps(seen.told()))


if __name__ == "__main__":
    name, path, *rest = sys.argv[1:]
    records = Path(rest.pop()) if len(rest) > 3 else None
    asyncio.run(main(name, Path(path).read_bytes(), *map(float, rest), records=records))
