"""One worker for all tests that do not kill it, and clients that carry the token."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from django.conf import settings
from django.test import Client, override_settings

from tests.processes import TOKEN, Worker


@pytest.fixture(scope="session")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """A running worker that this process's Django settings point at."""
    folder: Path = tmp_path_factory.mktemp("worker")
    with Worker(folder) as running, override_settings(MOLT={**settings.MOLT, "SHM": running.shm}):
        yield running


@pytest.fixture
def own_worker(tmp_path: Path) -> Iterator[Worker]:
    """A running worker that one test has for itself, to kill."""
    with Worker(tmp_path) as running:
        yield running


@pytest.fixture
def http() -> Client:
    """Django's test client, with the token."""
    return Client(headers=TOKEN)
