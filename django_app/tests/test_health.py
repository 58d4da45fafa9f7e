"""/health/ tells the worker's state."""

import os

from django.conf import settings
from django.test import Client, override_settings
from molt_accel import SpawnedClient


def test_ready(worker: SpawnedClient, http: Client) -> None:
    response = http.get("/health/")
    assert response.status_code == 200
    assert response.json()["status"] == "ok"
    assert response.json()["pid"] == worker.worker.pid


def test_no_worker(http: Client) -> None:
    with override_settings(MOLT={**settings.MOLT, "SHM": f"/molt-django-{os.getpid()}-none"}):
        response = http.get("/health/")
        assert response.status_code == 503
        assert response.json().keys() == {"error", "index", "field"}
        assert http.post("/offload/", b"{}", content_type="application/json").status_code == 503
        assert http.post("/baseline/", b"{}", content_type="application/json").status_code == 400
