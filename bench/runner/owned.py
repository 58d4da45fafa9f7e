"""Everything that a run has started, ended whatever happens.

A run may be told to stop at any moment (Ctrl-C, SIGTERM, a closed terminal). What was started is therefore registered
in the same breath in which it is started, and a signal in between waits: there is no instant at which something runs
that nobody would end. While the run cleans up, further signals are ignored; each ending is bounded in time.
"""

import atexit
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, TypeVar

T = TypeVar("T")
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(BaseException):
    """The run was told to stop. Not an Exception: nothing that handles failures may swallow it."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


class Owned:
    """A stack of endings. Use it as a context in the main thread, around the whole run."""

    def __init__(self) -> None:
        self._endings: list[tuple[object, Callable[[], object]]] = []
        self._held = 0
        self._pending: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Owned":
        # A signal may strike between the run's last step and the first of __exit__.
        atexit.register(self.end_all)
        # Set also where SIGINT arrives ignored, as it does in a shell's background jobs.
        self._before = {number: signal.signal(number, self._signalled) for number in SIGNALS}
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._held += 1  # never let go: the handlers below are the ones that were there before
        self.end_all()
        atexit.unregister(self.end_all)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if kind is None and self._pending is not None:
            raise Stopped(self._pending)

    def _signalled(self, number: int, frame: FrameType | None) -> None:
        if self._held:
            self._pending = number
        else:
            raise Stopped(number)

    @contextmanager
    def _hold(self) -> Iterator[None]:
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1
            if not self._held and self._pending is not None:
                number, self._pending = self._pending, None
                raise Stopped(number)

    def start(self, begin: Callable[[], T], end: Callable[[T], object]) -> T:
        """Calls `begin` and remembers that its result is to be given to `end`, both or neither."""
        with self._hold():
            thing = begin()
            self._endings.append((thing, lambda: end(thing)))
        return thing

    def end(self, thing: object) -> None:
        """Ends one thing now, before the run is over. Ending it again does nothing."""
        with self._hold():
            for index in reversed(range(len(self._endings))):
                if self._endings[index][0] is thing:
                    self._endings.pop(index)[1]()
                    return

    def mark(self) -> int:
        """For `end_since`: how much runs now."""
        return len(self._endings)

    def end_since(self, mark: int) -> None:
        """Ends what was started since then, the latest first: the rest of something that did not come up."""
        for thing, _ in reversed(self._endings[mark:]):
            self.end(thing)

    def end_all(self) -> None:
        """Ends everything, the latest first. One ending that fails does not keep the others from theirs."""
        while self._endings:
            thing, end = self._endings.pop()
            try:
                end()
            except Exception as reason:
                print(f"could not end {thing}: {reason}", file=sys.stderr)
