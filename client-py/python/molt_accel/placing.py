"""Payloads in the shared memory of a worker that serves."""

from __future__ import annotations

from .attachment import Attachment
from .block import Block
from .errors import MoltUnavailable

TYPE_CHECKING = False  # see molt_accel/__init__.py
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from .deadline import Deadline

_BYTES = (bytes, bytearray, memoryview)


class Placing(Attachment):
    """The part of a client that places payloads."""

    def block(self, size: int, timeout: float | Deadline | None = None) -> Block:
        """Shared memory to write a payload into, for `exchange`; whoever asked for it frees it. While a worker is being
        started it waits for that, as long as a call may take."""
        return self._placing(self.deadline(timeout), lambda: Block(self._unattached(), size))

    def place(self, payload: Any, timeout: float | Deadline | None = None) -> Any:
        """An Arrow payload for `exchange`: bytes of an IPC stream as they are, anything else placed in the arena; None is
        no body at all, for a SQL entry without inputs."""
        if payload is None or isinstance(payload, _BYTES):
            return self._placed(payload)
        return self._placing(self.deadline(timeout), lambda: self._placed(payload), payload)

    def _placing(self, deadline: Deadline, place: Callable[[], Any], *sources: Any) -> Any:
        """What `place` puts into the shared memory of a worker that serves: of its successor, if it goes just then."""
        self._present(deadline)
        while True:
            try:
                return place()
            except MoltUnavailable:
                if not self._may_place_again(deadline, sources):
                    raise
            self._present(deadline)

    async def _aplacing(self, deadline: Deadline, place: Callable[[], Any], *sources: Any) -> Any:
        """`_placing` for event loops."""
        await self.aattach(True, deadline)
        while True:
            try:
                return place()
            except MoltUnavailable:
                if not self._may_place_again(deadline, sources):
                    raise
            await self.aattach(True, deadline)

    def _may_place_again(self, deadline: Deadline, sources: tuple[Any, ...]) -> bool:
        """Whether there is time, and what was to be placed can be read again: a reader, which has no length, cannot."""
        return deadline.left_ns(self._unattached()) > 0 and all(hasattr(source, "__len__") for source in sources)

    def _placed(self, payload: Any) -> Any:
        """`place` once a worker is there: it waits for nothing."""
        if payload is None:
            return b""
        if isinstance(payload, _BYTES):
            return payload
        from .arrow import place

        return place(self._unattached(), payload)

    def _placed_tables(self, tables: Mapping[str, Any]) -> dict[str, Any]:
        from .arrow import place

        return {name: place(self._unattached(), table, name) for name, table in tables.items()}
