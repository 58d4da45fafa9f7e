"""One worker for all tests that do not kill it, and clients that carry the token."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from django.test import Client
from molt_accel import SpawnedClient

from tests.processes import TOKEN, Worker


@pytest.fixture(scope="session")
def worker(molt_worker: SpawnedClient) -> SpawnedClient:
    """The worker of molt_accel's own fixture: the settings' manifest, and every view of this process uses it."""
    return molt_worker


@pytest.fixture
def own_worker(tmp_path: Path) -> Iterator[Worker]:
    """A running worker that one test has for itself, to kill."""
    with Worker(tmp_path) as running:
        yield running


@pytest.fixture
def http() -> Client:
    """Django's test client, with the token."""
    return Client(headers=TOKEN)
