"""Trying an entry: the kill switch, a share of the requests, silent comparison; what is told of each."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.core.exceptions import RequestDataTooBig
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.test import AsyncRequestFactory, RequestFactory, override_settings

from molt_accel import testing
from molt_accel.django import aoffload, molt_offload, offload, signals, switch, timing, trial
from molt_accel.errors import MoltBusy, MoltInvalidInput, MoltTimeout, MoltUnavailable
from stub import COST, StubClient

NUMBERS = {"values": [1, 2, 3]}


def post(view: Callable[..., Any], body: Any = NUMBERS) -> Any:
    return view(RequestFactory().post("/sum/", body, content_type="application/json"))


def view_of(answer: Any = None, **arguments: Any) -> Callable[..., Any]:
    """A view that sums by itself, or answers `answer`, under the decorator."""

    @molt_offload(entry="sum", **arguments)
    def view(request: HttpRequest) -> HttpResponse:
        return JsonResponse({"sum": sum(json.loads(request.body)["values"])} if answer is None else answer)

    return view


@pytest.fixture
def fake() -> Iterator[testing.Fake]:
    with testing.fake({"sum": lambda payload, params: {"sum": sum(payload["values"])}}) as stand_in:
        yield stand_in


@pytest.fixture(autouse=True)
def _switch_is_on() -> Iterator[None]:
    yield
    switch.turn_on()


def test_the_switch_goes_back_to_the_own_code_at_once(fake: testing.Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    view = view_of({"own": True})
    assert json.loads(post(view).content) == {"sum": 6}
    switch.turn_off()
    assert str(switch.path()) in (switch.reason() or "")
    assert json.loads(post(view).content) == {"own": True}
    with pytest.raises(FileExistsError):
        switch.turn_off()
    assert switch.turn_on() and not switch.turn_on()
    assert json.loads(post(view).content) == {"sum": 6}
    with override_settings(MOLT={"SHM": "/molt-tests-nobody", "OFFLOAD": False}):
        assert json.loads(post(view).content) == {"own": True} and "OFFLOAD" in (switch.reason() or "")
    monkeypatch.setenv("MOLT_OFFLOAD", "0")
    assert json.loads(post(view).content) == {"own": True} and "MOLT_OFFLOAD=0" in (switch.reason() or "")
    monkeypatch.setenv("MOLT_OFFLOAD", "1")
    assert switch.reason() is None


def test_a_switch_of_another_user_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    switch.turn_off()
    assert switch.reason() is not None
    monkeypatch.setattr("os.geteuid", lambda: 4711)
    monkeypatch.setattr("os.stat", _owned_by(4712, switch.path()))
    assert switch.reason() is None


def _owned_by(uid: int, path: Any) -> Callable[..., Any]:
    import os
    from types import SimpleNamespace

    real = os.stat
    return lambda asked, **given: SimpleNamespace(st_uid=uid) if str(asked) == str(path) else real(asked, **given)


def test_percent_sends_that_share(fake: testing.Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    view = view_of({"own": True}, percent=30)
    for drawn, offloaded in ((0.29, True), (0.31, False)):
        monkeypatch.setattr("random.random", lambda drawn=drawn: drawn)
        assert (json.loads(post(view).content) == {"sum": 6}) is offloaded
    assert len(fake.calls) == 1


@pytest.mark.parametrize("given", [{"percent": 101}, {"percent": -1}, {"shadow": 2}])
def test_a_share_that_is_none_is_refused(given: Any) -> None:
    with pytest.raises(ValueError, match="share of the requests"):
        view_of(**given)


def test_the_shadow_answers_by_the_view_and_is_silent_where_both_agree(fake: testing.Fake, caplog: Any) -> None:
    assert json.loads(post(view_of(shadow=1.0)).content) == {"sum": 6}
    assert [call.payload for call in fake.calls] == [NUMBERS]
    assert caplog.records == []


def test_the_shadow_logs_a_diff_where_they_differ(fake: testing.Fake, caplog: Any) -> None:
    told: list[str] = []

    def tell(difference: str, **given: Any) -> None:
        told.append(difference)

    signals.shadow_differed.connect(tell)
    try:
        assert json.loads(post(view_of({"sum": 7}, shadow=1.0)).content) == {"sum": 7}
    finally:
        signals.shadow_differed.disconnect(tell)
    (record,) = caplog.records
    assert record.name == "molt_accel.shadow" and record.levelno == logging.WARNING
    assert '- "sum": 7' in record.getMessage() and '+ "sum": 6' in record.getMessage()
    assert told and told[0] in record.getMessage()


def test_the_path_stays_within_its_line(caplog: Any) -> None:
    def fail(payload: Any, params: Any) -> Any:
        raise KeyError("values")

    for entry in (fail, lambda payload, params: 1):
        with testing.fake({"sum": entry}):
            asked = RequestFactory().post("/sum/%0Aforged", NUMBERS, content_type="application/json")
            view_of({"sum": 7}, shadow=1.0, timeout=60.0)(asked)
    assert [record.getMessage().split("\n")[0][:24] for record in caplog.records] == [
        "POST /sum/\\nforged: shad",
        "POST /sum/\\nforged: the ",
    ]


async def test_the_shadow_of_an_async_view(fake: testing.Fake, caplog: Any) -> None:
    @molt_offload(entry="sum", shadow=1.0)
    async def view(request: HttpRequest) -> HttpResponse:
        return JsonResponse({"sum": 7})

    request = AsyncRequestFactory().post("/sum/", NUMBERS, content_type="application/json")
    assert json.loads((await view(request)).content) == {"sum": 7}
    assert '+ "sum": 6' in caplog.text


def test_a_body_that_django_would_not_take_into_memory_is_the_views_alone(fake: testing.Fake) -> None:
    @molt_offload(entry="sum", shadow=1.0)
    def view(request: HttpRequest) -> HttpResponse:
        return JsonResponse({"bytes": len(request.read())})

    with override_settings(DATA_UPLOAD_MAX_MEMORY_SIZE=1000):
        request = RequestFactory().post("/sum/", b"x" * 1001, content_type="application/octet-stream")
        assert json.loads(view(request).content) == {"bytes": 1001}
        assert fake.calls == []
        request = RequestFactory().post("/sum/", b"x" * 1001, content_type="application/octet-stream")
        del request.META["CONTENT_LENGTH"]  # chunked: its length shows when it is too late
        assert view(request).status_code == 200 and fake.calls == []
    with override_settings(DATA_UPLOAD_MAX_MEMORY_SIZE=None):
        assert json.loads(post(view).content) == {"bytes": len(json.dumps(NUMBERS))}
    assert [call.payload for call in fake.calls] == [NUMBERS]


def test_the_own_code_reads_what_the_worker_would_have_been_sent(fake: testing.Fake) -> None:
    body = {"values": list(range(1000))}
    molt = {"SHM": "/molt-tests-nobody"}
    with override_settings(DATA_UPLOAD_MAX_MEMORY_SIZE=1000, MOLT=molt):
        assert json.loads(post(view_of(percent=100), body).content) == {"sum": 499500} and len(fake.calls) == 1
        with override_settings(MOLT={**molt, "OFFLOAD": False}):
            assert json.loads(post(view_of(), body).content) == {"sum": 499500} and len(fake.calls) == 1
        with pytest.raises(RequestDataTooBig):  # the view was never in the worker's place: it is as it was
            post(view_of(shadow=0.5), body)


def test_a_share_of_nothing_leaves_the_worker_alone(fake: testing.Fake) -> None:
    assert json.loads(post(view_of(shadow=0.0)).content) == {"sum": 6}
    assert fake.calls == []


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (MoltTimeout("late"), "slower than the view"),
        (MoltUnavailable("no worker"), "unavailable where the view answered"),
        (KeyError("values"), "shadowing sum failed"),
    ],
)
def test_whatever_the_worker_does_the_views_answer_stands(error: Exception, says: str, caplog: Any) -> None:
    def fail(payload: Any, params: Any) -> Any:
        raise error

    with testing.fake({"sum": fail}) as fake:
        assert json.loads(post(view_of({"sum": 7}, shadow=1.0, timeout=60.0)).content) == {"sum": 7}
    assert says in caplog.text
    assert fake.calls[0].timeout is not None and fake.calls[0].timeout < 60, "no longer than the view itself took"


def test_both_may_refuse_the_same_input(caplog: Any) -> None:
    def refuse(payload: Any, params: Any) -> Any:
        raise MoltInvalidInput("values is missing", status=422)

    @molt_offload(entry="sum", shadow=1.0)
    def view(request: HttpRequest) -> HttpResponse:
        return JsonResponse({"error": "values is missing"}, status=422)

    with testing.fake({"sum": refuse}):
        assert post(view).status_code == 422
    assert caplog.records == []


def test_what_counts_as_equal() -> None:
    def differs(left: Any, right: Any) -> bool:
        return trial.difference(JsonResponse(left, safe=False), JsonResponse(right, safe=False)) is not None

    assert not differs({"a": 1.0, "b": [1]}, {"b": [1], "a": 1.0 + 1e-12})
    assert not differs(1, 1.0)
    assert differs(1.0, 1.001) and differs({"a": 1}, {"a": 1, "b": 2}) and differs([1], [1, 1])
    assert differs(True, 1) and differs(None, 0) and differs("1", 1)
    assert trial.difference(HttpResponse(b"\xff"), HttpResponse(b"\xfe")) is not None
    text = trial.difference(JsonResponse(list(range(500)), safe=False), JsonResponse([], safe=False))
    assert text is not None and text.endswith("lines more)")


def test_signals_and_the_reason_of_a_fallback() -> None:
    seen: list[tuple[str, Any]] = []

    def failed(error: Any, status: int, **given: Any) -> None:
        seen.append(("failed", status))

    def fell(error: Any, **given: Any) -> None:
        seen.append(("fell back", error.outcome))

    def busy(payload: Any, params: Any) -> Any:
        raise MoltBusy("full", retry_after=2)

    def gone(payload: Any, params: Any) -> Any:
        raise MoltUnavailable("no worker")

    signals.request_failed.connect(failed)
    signals.fell_back.connect(fell)
    try:
        with override_settings(MOLT={"SERVER_TIMING": True}):
            with testing.fake({"sum": busy}):
                response = post(view_of({"own": True}, fallback=True))
                assert (response.status_code, response.headers["Retry-After"]) == (503, "2")
            with testing.fake({"sum": gone}):
                response = post(view_of({"own": True}, fallback=True))
                assert response.headers["Server-Timing"] == 'molt-own;desc="unavailable"'
    finally:
        signals.request_failed.disconnect(failed)
        signals.fell_back.disconnect(fell)
    assert seen == [("failed", 503), ("fell back", "unavailable")]


def test_server_timing_shows_the_cost_where_it_is_wanted(fake: testing.Fake) -> None:
    view = view_of()
    assert "Server-Timing" not in post(view).headers
    with override_settings(DEBUG=True):
        header = post(view).headers["Server-Timing"]
    names = [part.split(";")[0].strip() for part in header.split(",")]
    assert names == ["molt", "molt-copy", "molt-queue", "molt-run", "molt-transport"] and 'desc="sum"' in header
    with override_settings(DEBUG=True, MOLT={"SERVER_TIMING": False}):
        assert "Server-Timing" not in post(view).headers


def test_server_timing_keeps_apart_what_worker_client_and_project_cost(
    stub: StubClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]

    def spend(seconds: float, result: Any = None) -> Any:
        clock[0] += seconds
        return result

    monkeypatch.setattr(timing, "now", lambda: clock[0])
    exchange = stub.exchange
    monkeypatch.setattr(stub, "exchange", lambda *args: spend(4.0, exchange(*args)))
    request = RequestFactory().post("/", b"[1]", content_type="application/json")
    monkeypatch.setattr(request, "read", lambda size: spend(2.0, b"[1]"))  # a slow upload
    with override_settings(MOLT={"SERVER_TIMING": True}):
        response = offload(request, entry="e", params=lambda request: spend(1.0, {}), response=lambda *_: spend(8.0, 1))
        assert response.headers["Server-Timing"] == (
            'molt;desc="e";dur=15000.000, molt-copy;dur=2000.000, molt-queue;dur=0.001, molt-run;dur=0.002, '
            "molt-transport;dur=3999.997"
        )


def test_server_timing_says_how_old_the_tables_were(stub: StubClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(COST, "table_age", 63_001)  # as the library says it: one more than the milliseconds
    with override_settings(MOLT={"SERVER_TIMING": True}):
        response = offload(RequestFactory().post("/", b"[1]", content_type="application/json"), entry="e")
    assert response.headers["Server-Timing"].endswith(", molt-table-age;dur=63000")
    assert response.molt.table_age == 63.0


@pytest.mark.parametrize("way", ["sync", "async"])
async def test_an_error_answer_has_a_server_timing_too(stub: StubClient, way: str) -> None:
    stub.answer = MoltBusy("full")
    with override_settings(MOLT={"SERVER_TIMING": True}):
        if way == "sync":
            response = post(molt_offload(entry="e")(lambda request: None))
        else:
            response = await aoffload(AsyncRequestFactory().post("/"), entry="e")
    header = response.headers["Server-Timing"]
    assert re.fullmatch(r'molt;desc="e";dur=[\d.]+, molt-copy;dur=[\d.]+, molt-failed;desc="busy"', header), header


def test_offload_inside_a_view_has_no_code_of_its_own_to_go_back_to(fake: testing.Fake) -> None:
    switch.turn_off()
    assert json.loads(post(lambda request: offload(request, entry="sum")).content) == {"sum": 6}
