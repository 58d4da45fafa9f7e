"""No endpoint answers a caller without a token."""

import pytest
from asgiref.sync import async_to_sync
from django.test import AsyncClient, Client
from django.urls import URLPattern, get_resolver

from tests.processes import TOKEN
from tests.unread import Unread

METHODS = ["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS"]
REFUSED = ["", "demo-token", "Bearer", "Bearer ", "Bearer wrong", "Basic demo-token", "Bearer \xff"]


def endpoints() -> list[str]:
    """The address of every endpoint that the project has."""
    patterns = get_resolver().url_patterns
    for pattern in patterns:
        assert isinstance(pattern, URLPattern), f"{pattern} includes further addresses: walk them here too"
    return [f"/{pattern.pattern}" for pattern in patterns]


def test_the_walk_sees_every_endpoint() -> None:
    named = {"/baseline/", "/tuned/", "/offload/", "/aoffload/", "/baseline/table/", "/offload/table/", "/health/"}
    named |= {f"/{way}/report/" for way in ("baseline", "offload", "polars", "duckdb")}
    assert named <= set(endpoints())


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("address", [*endpoints(), "/no/such/address/"])
def test_401_without_a_token(address: str, method: str) -> None:
    response = Client().generic(method, address, b"{}", content_type="application/json")
    assert response.status_code == 401
    assert response["WWW-Authenticate"] == "Bearer"
    if method != "HEAD":
        assert response.json().keys() == {"error", "index", "field"}


@pytest.mark.parametrize("header", REFUSED)
@pytest.mark.parametrize("address", endpoints())
def test_401_with_a_wrong_token(address: str, header: str) -> None:
    assert Client().post(address, headers={"Authorization": header}).status_code == 401


@pytest.mark.parametrize("address", endpoints())
def test_401_through_asgi(address: str) -> None:
    assert async_to_sync(AsyncClient().post)(address).status_code == 401


def test_a_body_is_not_read_for_a_stranger() -> None:
    response = Client().generic("POST", "/offload/", b"", **{"wsgi.input": Unread(), "CONTENT_LENGTH": "100"})
    assert response.status_code == 401


@pytest.mark.parametrize("address", endpoints())
def test_the_token_opens_every_endpoint(address: str, worker: object) -> None:
    assert Client(headers=TOKEN).post(address).status_code in {200, 400, 405}


def test_wrong_methods(http: Client) -> None:
    for address in endpoints():
        allowed = "GET" if address == "/health/" or address.endswith("/report/") else "POST"
        assert getattr(http, "post" if allowed == "GET" else "get")(address).status_code == 405
        response = http.put(address)
        assert response.status_code == 405
        assert allowed in response["Allow"]
