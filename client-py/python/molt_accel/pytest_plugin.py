"""pytest finds these fixtures where molt_accel is installed (see `molt_accel.testing`)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ._spawn import SpawnedClient


@pytest.fixture(scope="session")
def molt_worker() -> Iterator[SpawnedClient]:
    """A real worker for the whole run, with the project's manifest; every view uses it."""
    from .testing import worker

    with worker() as client:
        yield client
