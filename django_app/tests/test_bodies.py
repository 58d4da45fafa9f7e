"""Bodies far beyond Django's own 2.5 MB limit go through the offloaded views."""

import json

import pytest
from django.test import Client, override_settings
from molt_accel import SpawnedClient

from orders import generate, table_data

ARROW = "application/vnd.apache.arrow.stream"


def lines_for(megabytes: float) -> int:
    """How many order lines make about that many megabytes of JSON."""
    return int(megabytes * 1_000_000 / (len(generate.body(1_000, 1)) / 1_000))


@pytest.mark.parametrize("megabytes", [0.3, 1, 3, 10])
def test_json_bodies(worker: SpawnedClient, http: Client, megabytes: float) -> None:
    body = generate.body(lines_for(megabytes), 1)
    expected = http.post("/tuned/", body, content_type="application/json")
    with override_settings(DATA_UPLOAD_MAX_MEMORY_SIZE=1024):  # the offloaded view does not go by it
        response = http.post("/offload/", body, content_type="application/json")
    assert response.status_code == expected.status_code == 200
    assert json.loads(response.content) == json.loads(expected.content)


@pytest.mark.parametrize("rows", [10_000, 300_000])
def test_arrow_bodies(worker: SpawnedClient, http: Client, rows: int) -> None:
    body = table_data.body(rows, seed=4)
    assert 300_000 < len(body) < 11_000_000
    response = http.post("/offload/table/", body, content_type=ARROW)
    assert response.status_code == 200
    assert json.loads(response.content) == json.loads(http.post("/baseline/table/", body, content_type=ARROW).content)
