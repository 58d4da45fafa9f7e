"""The check before the load: it passes where all endpoints agree, and names the case where they do not."""

import json
from types import SimpleNamespace

import httpx
import pytest

from bench.runner import equal
from bench.runner.errors import BenchError


def server(answers) -> SimpleNamespace:
    """A server whose answers a function makes of (path, body)."""

    def handle(request: httpx.Request) -> httpx.Response:
        status, content = answers(request.url.path, request.content)
        return httpx.Response(status, json=content)

    client = httpx.Client(base_url="http://bench", transport=httpx.MockTransport(handle))
    return SimpleNamespace(name="gunicorn", client=lambda: client)


def agreeing(path: str, body: bytes) -> tuple[int, object]:
    """The same to the same body on every path; the wording of an error is each endpoint's own."""
    try:
        fault = next((i for i, line in enumerate(json.loads(body)["orders"]) if line["qty"] == 0), None)
    except ValueError:
        return 200, len(body)
    return (200, len(body)) if fault is None else (400, {"error": f"{path} says no", "index": fault, "field": "qty"})


def test_equal_answers_pass_and_are_counted() -> None:
    cases = len(list(equal.order_cases())), len(list(equal.table_cases()))
    assert equal.check(server(agreeing)) == 2 * cases[0] + cases[1] > 40


def test_another_answer_names_the_endpoint_and_the_case() -> None:
    def wrong(path: str, body: bytes) -> tuple[int, object]:
        status, content = agreeing(path, body)
        return (status, -1) if path == "/tuned/" and len(body) > 100_000 else (status, content)

    with pytest.raises(
        BenchError, match="/tuned/ and /baseline/ answer differently to a request with 2000 lines, seed 1"
    ):
        equal.check(server(wrong))


def test_another_place_of_the_fault_is_another_answer() -> None:
    def wrong(path: str, body: bytes) -> tuple[int, object]:
        status, content = agreeing(path, body)
        return (status, {**content, "index": 6}) if status == 400 and path == "/offload/" else (status, content)

    with pytest.raises(BenchError, match="line 7 with qty = 0"):
        equal.check(server(wrong))


def test_a_failing_endpoint_stops_the_run() -> None:
    with pytest.raises(BenchError, match="/baseline/ answered 503"):
        equal.check(server(lambda path, body: (503, {"error": "busy"})))
