"""For the tests of projects that use molt: a worker of one's own, or Python functions in a worker's place.

```python
from molt_accel import testing

def test_summary(client):                                        # no worker: fast, and every outcome can be had
    with testing.fake({"order_summary": lambda payload, params: {"orders": 2}}) as fake:
        assert client.post("/summary/", {...}).json() == {"orders": 2}
    assert fake.calls[0].entry == "order_summary"

def test_summary_for_real(client, molt_worker):                  # pytest: a real worker for the whole run
    assert client.post("/summary/", {...}).status_code == 200

def test_rates(client):                                          # SQL by a function, tables by name
    with testing.fake({}, query=lambda sql, tables, params: tables["rates"].slice(0, 1), tables={"rates": RATES}):
        assert client.get("/rates/").status_code == 200

class SummaryTests(TestCase):                                    # Django's own runner
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.molt = cls.enterClassContext(testing.worker())
```

Every worker has a name of its own, so parallel test processes never share one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ._fake import Call, Entry, Fake
from ._fake_tables import FakeTable, Query
from ._spawn import SpawnedClient, spawn

__all__ = ["Call", "Entry", "Fake", "FakeTable", "Query", "fake", "worker"]

ARENA = "64MiB"
"""Every test process starts a worker of its own: together they must not ask for what the one in production gets."""


@contextmanager
def worker(*, tables: bool = False, **given: Any) -> Iterator[SpawnedClient]:
    """A real worker, started with the manifest of `MOLT["EXPORTS"]` and used by every view until the block ends.

    tables: publishes the querysets of `MOLT["TABLES"]`, once, as the database has them now; a test that adds rows calls
    `molt_accel.django.tables.refresh`. The other arguments are those of `molt_accel.spawn` and win over the settings;
    the arena is a small one.
    """
    settings = _django_settings()
    if settings is None:
        with spawn(**{"arena": ARENA, **given}) as client:
            yield client
        return
    wanted = settings.read()
    started = {"exports": wanted.EXPORTS, "arena": ARENA, "args": wanted.WORKER_ARGS, **given}
    with spawn(**started) as client, _overridden(client):
        if tables:
            _publish(client)
        yield client


@contextmanager
def fake(
    entries: Mapping[str, Entry], query: Query | None = None, tables: Mapping[str, Any] | None = None
) -> Iterator[Fake]:
    """Answers every offloaded request of this process by `entries` until the block ends; needs no worker.

    query: `f(sql, tables, params)` answers `query` in the place of SQL. tables: what is resident at first, by name.
    """
    from .django import clients

    stand_in = Fake(entries, query, tables)
    before, clients.stand_in = clients.stand_in, stand_in
    try:
        yield stand_in
    finally:
        clients.stand_in = before


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


def _publish(client: SpawnedClient) -> None:
    from .django import tables

    for name in tables.wanted():
        tables.refresh(client, name)
