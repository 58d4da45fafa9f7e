"""For the tests of projects that use molt: a worker of one's own, or Python functions in a worker's place.

```python
from molt_accel import testing

def test_summary(client):                                        # no worker: fast, and every outcome can be had
    with testing.fake({"order_summary": lambda payload, params: {"orders": 2}}) as fake:
        assert client.post("/summary/", {...}).json() == {"orders": 2}
    assert fake.calls[0].entry == "order_summary"

def test_summary_for_real(client, molt_worker):                  # pytest: a real worker for the whole run
    assert client.post("/summary/", {...}).status_code == 200

class SummaryTests(TestCase):                                    # Django's own runner
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.molt = cls.enterClassContext(testing.worker())
```

Every worker has a name of its own, so parallel test processes never share one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple

from . import codecs
from ._spawn import SpawnedClient, spawn
from .answer import Answer, Metrics
from .errors import MoltUnknownEntry

Entry = Callable[[Any, Mapping[str, Any]], Any]
"""`f(payload, params)`: the decoded payload and the params in, the answer out; it may raise any `MoltError`."""


@contextmanager
def worker(**given: Any) -> Iterator[SpawnedClient]:
    """A real worker, started with the manifest of `MOLT["EXPORTS"]` and used by every view until the block ends.

    The arguments are those of `molt_accel.spawn` and win over the settings.
    """
    override: Any = nullcontext()
    settings = _django_settings()
    if settings is not None:
        wanted = settings.read()
        given = {"exports": wanted.EXPORTS, "arena": wanted.ARENA or "64MiB", "args": wanted.WORKER_ARGS, **given}
    with spawn(**given) as client:
        if settings is not None:
            override = _overridden(client)
        with override:
            yield client


@contextmanager
def fake(entries: Mapping[str, Entry]) -> Iterator[Fake]:
    """Answers every offloaded request of this process by `entries` until the block ends; needs no worker."""
    from .django import clients

    stand_in = Fake(entries)
    before, clients.stand_in = clients.stand_in, stand_in
    try:
        yield stand_in
    finally:
        clients.stand_in = before


class Call(NamedTuple):
    """One request as an entry saw it."""

    entry: str
    payload: Any
    params: dict[str, Any]
    timeout: float | None


class Fake:
    """Stands in for a `Client`. Payloads are encoded and decoded as on their way to a worker, so what could not travel
    fails here as well; tables arrive as pyarrow tables."""

    def __init__(self, entries: Mapping[str, Entry]) -> None:
        self.entries = dict(entries)
        self.calls: list[Call] = []
        """What was asked, in order."""

    def call(
        self,
        entry: str,
        payload: Any = None,
        codec: str = "msgpack",
        timeout: float | None = None,
        params: Mapping[str, Any] | None = None,
        idempotent: bool | None = None,
        *,
        cancel: Any = None,
        traceparent: str | None = None,
    ) -> Any:
        """`Client.call`."""
        number = codecs.number(codec)
        body = self.place(payload) if number == codecs.ARROW else codecs.encode(number, payload)
        answer = self.exchange(entry, body, number, number, timeout, params, idempotent)
        return _decoded(answer.codec, answer.body)

    async def acall(self, *args: Any, **kwargs: Any) -> Any:
        """`Client.acall`."""
        return self.call(*args, **kwargs)

    def exchange(
        self,
        entry: str,
        payload: Any,
        codec: int,
        accept: int,
        timeout: float | None = None,
        params: Mapping[str, Any] | None = None,
        idempotent: bool | None = None,
        gone: Callable[[], object] | None = None,
    ) -> Answer:
        """`Client.exchange`."""
        known = self.entries.get(entry)
        decoded = _decoded(codec, payload if isinstance(payload, bytes) else bytes(payload.view))
        given = codecs.unpack(codecs.pack(dict(params or {}), "params"))
        self.calls.append(Call(entry, decoded, given, timeout))
        if known is None:
            raise MoltUnknownEntry(
                f"the fake worker has no entry {entry!r}. hint: there are {', '.join(sorted(self.entries)) or 'none'}",
                entry=entry,
            )
        result = known(decoded, given)
        used = codecs.JSON if accept == codecs.ARROW and not hasattr(result, "__arrow_c_stream__") else accept
        body = self.place(result) if used == codecs.ARROW else codecs.encode(used, result)
        return Answer(used, body, Metrics(_Free()))

    async def aexchange(self, *args: Any, **kwargs: Any) -> Answer:
        """`Client.aexchange`."""
        return self.exchange(*args, **kwargs)

    def ping(self, timeout: float | None = None) -> float:
        """`Client.ping`."""
        return 0.0

    def session(self) -> Fake:
        """There is no session to be had, and none is missed."""
        return self

    async def aattach(self, present: bool = False) -> None:
        """Nothing to attach to."""

    def block(self, size: int) -> _Block:
        """Private memory in place of a block of shared memory."""
        return _Block(size)

    def place(self, table: Any) -> bytes:
        """A table as the bytes of an Arrow IPC stream."""
        import pyarrow as pa

        if isinstance(table, bytes):
            return table
        whole = pa.table(table)
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, whole.schema) as stream:
            stream.write_table(whole)
        return sink.getvalue().to_pybytes()

    def close(self) -> None:
        """Nothing to end."""


class _Block:
    def __init__(self, size: int) -> None:
        self.view = memoryview(bytearray(size))

    def free(self) -> None:
        pass


class _Free:
    """What a request costs that nobody worked on."""

    queue_us = exec_us = allocs = alloc_bytes = copied_bytes = queue_depth = plans = flags = 0


def _decoded(codec: int, body: bytes) -> Any:
    if codec == codecs.ARROW:
        import pyarrow as pa

        return pa.ipc.open_stream(body).read_all()
    return codecs.decode(codec, body)


def _django_settings() -> Any:
    """The settings' reader, where this process runs Django."""
    try:
        from django.conf import settings as django_settings
    except ImportError:
        return None
    if not django_settings.configured:
        return None
    from .django import settings

    return settings


def _overridden(client: SpawnedClient) -> Any:
    from django.conf import settings as django_settings
    from django.test import override_settings

    from .django import settings

    given = dict(getattr(django_settings, settings.SETTING, {}))
    return override_settings(**{settings.SETTING: {**given, "SHM": client.shm, "SOCKET": client.socket}})
