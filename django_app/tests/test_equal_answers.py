"""The three order endpoints give the same answer to the same request, valid or not."""

import json

import msgpack
import pytest
from asgiref.sync import async_to_sync
from django.http import HttpResponse
from django.test import AsyncClient, Client
from molt_accel import SpawnedClient

from orders import generate
from orders.tests.requests import generated_requests
from tests.processes import TOKEN

REQUESTS = 1_000


def outcome(response: HttpResponse) -> tuple[int, object]:
    """The status and the parsed answer."""
    return response.status_code, json.loads(response.content)


def test_equal_over_generated_requests(worker: SpawnedClient, http: Client) -> None:
    statuses = []
    for number, body in enumerate(generated_requests(REQUESTS, seed=20261123)):
        baseline, tuned, offload = (
            outcome(http.post(address, body, content_type="application/json"))
            for address in ("/baseline/", "/tuned/", "/offload/")
        )
        assert tuned == baseline, f"request {number}: {body[:500]!r}"
        assert offload == baseline, f"request {number}: {body[:500]!r}"
        statuses.append(baseline[0])
    # A generator that made only one kind would compare nothing.
    assert set(statuses) == {200, 400}
    assert min(statuses.count(200), statuses.count(400)) > REQUESTS / 10


def test_equal_for_the_demos_default_size(worker: SpawnedClient, http: Client) -> None:
    body = generate.body(2_000, 1)
    baseline = outcome(http.post("/baseline/", body, content_type="application/json"))
    assert baseline[0] == 200
    assert outcome(http.post("/offload/", body, content_type="application/json")) == baseline


def test_equal_through_the_async_view(worker: SpawnedClient, http: Client) -> None:
    post = async_to_sync(AsyncClient().post)
    for body in [generate.body(2_000, 1), *generated_requests(20, seed=2)]:
        expected = outcome(http.post("/baseline/", body, content_type="application/json"))
        assert outcome(post("/aoffload/", body, content_type="application/json", headers=TOKEN)) == expected


@pytest.mark.parametrize("content_type", ["application/msgpack", "application/x-msgpack", "application/vnd.msgpack"])
def test_messagepack_in_and_out(worker: SpawnedClient, http: Client, content_type: str) -> None:
    body = generate.body(200, 3)
    expected = json.loads(http.post("/baseline/", body, content_type="application/json").content)
    packed = msgpack.packb(json.loads(body))
    response = http.post("/offload/", packed, content_type=content_type, headers={"Accept": "application/msgpack"})
    assert response.status_code == 200
    assert response["Content-Type"] == "application/msgpack"
    assert msgpack.unpackb(response.content) == expected
    assert json.loads(http.post("/offload/", packed, content_type=content_type).content) == expected
