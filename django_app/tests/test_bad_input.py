"""What is wrong with a request comes back as a typed error, and the worker goes on."""

import json
from collections.abc import Iterator

import molt_accel
import msgpack
import pyarrow as pa
import pytest
from django.conf import settings
from django.http import HttpResponse
from django.test import Client, RequestFactory
from molt_accel.django import offload

from orders import generate, table_data
from tests.unread import Unread

JSON = "application/json"
MSGPACK = "application/msgpack"
ARROW = "application/vnd.apache.arrow.stream"
GOOD = generate.body(20, 1)
LINE = {"id": 1, "customer": "C1", "region": "north", "category": "books", "qty": 3, "price": "12.34"}
LINE |= {"discount": "0.05", "ts": 1760000000}


def check_error(response: HttpResponse, status: int = 400) -> dict[str, object]:
    """The answer is an error of the one shape; returns it."""
    assert response.status_code == status, response.content[:500]
    answer = json.loads(response.content)
    assert answer.keys() == {"error", "index", "field"}
    assert answer["error"]
    for forbidden in ("Traceback", "/src/", ".rs", ".py", "panicked"):
        assert forbidden not in answer["error"]
    return answer


@pytest.fixture
def goes_on(worker: molt_accel.SpawnedClient, http: Client) -> Iterator[None]:
    """After the test, the same worker process still answers."""
    before = worker.stats()["worker"]["pid"]
    yield
    assert http.post("/offload/", GOOD, content_type=JSON).status_code == 200
    assert worker.stats()["worker"]["pid"] == before


UNREADABLE_JSON = {
    "empty": b"",
    "truncated": GOOD[: len(GOOD) // 2],
    "truncated by one byte": GOOD[:-1],
    "garbage": bytes(range(256)),
    "trailing garbage": GOOD + b"}",
    "not UTF-8": b'{"orders": "\xff\xfe"}',
    "depth bomb of arrays": b"[" * 200_000,
    "depth bomb of objects": b'{"orders":' * 100_000,
    "depth bomb inside a line": b'{"min_amount": 10, "orders": [' + b"[" * 100_000 + b"]" * 100_000 + b"]}",
}


@pytest.mark.parametrize("address", ["/baseline/", "/tuned/", "/offload/", "/aoffload/"])
@pytest.mark.parametrize("body", UNREADABLE_JSON.values(), ids=UNREADABLE_JSON.keys())
def test_unreadable_json(goes_on: None, http: Client, address: str, body: bytes) -> None:
    check_error(http.post(address, body, content_type=JSON))


WRONG_TYPES = {
    "a number for the whole": 7,
    "null for the whole": None,
    "an array for the whole": [LINE],
    "no orders": {"min_amount": 10},
    "orders is an object": {"min_amount": 10, "orders": {}},
    "orders holds numbers": {"min_amount": 10, "orders": [1]},
    "min_amount is text": {"min_amount": "x", "orders": []},
    "qty is text": {"min_amount": 10, "orders": [LINE | {"qty": "3"}]},
    "qty is a fraction": {"min_amount": 10, "orders": [LINE | {"qty": 2.5}]},
    "qty is true": {"min_amount": 10, "orders": [LINE | {"qty": True}]},
    "price is a number": {"min_amount": 10, "orders": [LINE | {"price": 12.34}]},
    "customer is null": {"min_amount": 10, "orders": [LINE | {"customer": None}]},
    "region is unknown": {"min_amount": 10, "orders": [LINE, LINE | {"region": "atlantis"}]},
}


@pytest.mark.parametrize("value", WRONG_TYPES.values(), ids=WRONG_TYPES.keys())
def test_wrong_types(goes_on: None, http: Client, value: object) -> None:
    body = json.dumps(value).encode()
    expected = check_error(http.post("/baseline/", body, content_type=JSON))
    assert check_error(http.post("/tuned/", body, content_type=JSON)) == expected
    assert check_error(http.post("/offload/", body, content_type=JSON)) == expected
    packed = check_error(http.post("/offload/", msgpack.packb(value), content_type=MSGPACK))
    assert (packed["index"], packed["field"]) == (expected["index"], expected["field"])


PACKED = msgpack.packb(json.loads(GOOD))
UNREADABLE_MSGPACK = {
    "empty": b"",
    "truncated": PACKED[: len(PACKED) // 2],
    "truncated by one byte": PACKED[:-1],
    "garbage": bytes(range(255, -1, -1)),
    "trailing garbage": PACKED + b"\xc1",
    "an array said to be of four thousand million": b"\xdd\xff\xff\xff\xff",
    "text said to be of four thousand million": b"\x81\xa6orders\xdb\xff\xff\xff\xff",
    "depth bomb": b"\x91" * 200_000,
    "depth bomb inside a line": b"\x81\xa6orders\x91" + b"\x91" * 100_000 + b"\x01",
}


@pytest.mark.parametrize("body", UNREADABLE_MSGPACK.values(), ids=UNREADABLE_MSGPACK.keys())
def test_unreadable_msgpack(goes_on: None, http: Client, body: bytes) -> None:
    check_error(http.post("/offload/", body, content_type=MSGPACK))


TABLE = table_data.body(100, seed=1)
UNREADABLE_ARROW = {
    "empty": b"",
    "truncated": TABLE[: len(TABLE) // 2],
    "truncated in the schema": TABLE[:40],
    "garbage": bytes(range(256)) * 8,
    "a message said to be of two thousand million": b"\xff\xff\xff\xff\xff\xff\xff\x7f" + TABLE[8:],
}


@pytest.mark.parametrize("address", ["/baseline/table/", "/offload/table/"])
@pytest.mark.parametrize("body", UNREADABLE_ARROW.values(), ids=UNREADABLE_ARROW.keys())
def test_unreadable_arrow(goes_on: None, http: Client, address: str, body: bytes) -> None:
    check_error(http.post(address, body, content_type=ARROW))


@pytest.mark.parametrize("address", ["/baseline/table/", "/offload/table/"])
def test_a_table_with_other_columns_names_the_missing_one_and_those_present(
    goes_on: None, http: Client, address: str
) -> None:
    table = table_data.table(10).rename_columns(["region", "category", "quantity", "price", "discount"])
    answer = check_error(http.post(address, table_data.stream(table), content_type=ARROW))
    assert "qty" in answer["error"]
    for present in table.column_names:
        assert present in answer["error"]


def test_a_column_of_another_type(goes_on: None, http: Client) -> None:
    table = table_data.table(3).set_column(2, "qty", pa.array([[1], [2], [3]]))
    check_error(http.post("/offload/table/", table_data.stream(table), content_type=ARROW))


@pytest.mark.parametrize("address", ["/baseline/", "/tuned/", "/offload/", "/aoffload/", "/offload/table/"])
def test_a_body_over_the_limit_is_refused_unread(goes_on: None, worker: molt_accel.SpawnedClient, address: str) -> None:
    before = worker.stats()["arena"]["used_bytes"]
    too_long = {"wsgi.input": Unread(), "CONTENT_LENGTH": str(settings.BODY_LIMIT + 1)}
    token = {"HTTP_AUTHORIZATION": "Bearer demo-token"}
    response = Client().generic("POST", address, b"", content_type=JSON, **too_long, **token)
    check_error(response, status=413)
    assert worker.stats()["arena"]["used_bytes"] == before


def test_an_unknown_entry(goes_on: None, worker: molt_accel.SpawnedClient) -> None:
    request = RequestFactory().post("/", b"{}", content_type=JSON)
    response = offload(request, entry="no_such_entry")
    assert response.status_code == 500
    assert b"order_summary" not in response.content, "a stranger is not told which entries there are"
    with molt_accel.attach(shm=worker.shm) as client, pytest.raises(molt_accel.MoltUnknownEntry, match="no_such_entry"):
        client.call("no_such_entry", {})


def test_a_codec_that_the_entry_does_not_take(goes_on: None, worker: molt_accel.SpawnedClient, http: Client) -> None:
    check_error(http.post("/offload/", TABLE, content_type=ARROW))
    check_error(http.post("/offload/", b"a,b", content_type="text/csv"))
    with molt_accel.attach(shm=worker.shm) as client:
        for codec in ("raw", "arrow"):
            with pytest.raises(molt_accel.MoltInvalidInput, match=f'"order_summary" takes json .*, not {codec}'):
                client.call("order_summary", TABLE, codec=codec)
