"""The trace that a request belongs to stands in the worker's log lines about it."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from conftest import BARE, MEMFD
from django.test import RequestFactory
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

import molt_accel
from molt_accel.django import clients, offload

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
HEADER = f"00-{TRACE}-00f067aa0ba902b7-01"


@pytest.fixture(scope="module")
def talking() -> Iterator[molt_accel.SpawnedClient]:
    """A client of a worker that says of each request how it ended."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOLT_LOG", "molt_worker=debug")
        with molt_accel.spawn(BARE, arena="32MiB", threads=2, memfd=MEMFD) as spawned:
            yield spawned


def about(client: molt_accel.SpawnedClient, what: str) -> list[str]:
    """What the worker's log says with these words: a line is written before its answer."""
    lines = client.log.read_text().splitlines()
    return [line for line in lines if "request answered" in line and what in line]


def test_a_header_that_the_caller_names_is_in_the_log(talking: molt_accel.SpawnedClient) -> None:
    assert talking.call("echo", b"x", "raw", traceparent=HEADER) == b"x"
    assert talking.call("echo", {"a": 1}, params={"tenant": 7}, traceparent=HEADER) == {"a": 1}
    lines = about(talking, TRACE)
    assert len(lines) == 2
    for line in lines:
        assert line.endswith(f'entry="echo" pid={os.getpid()} trace_id={TRACE} traceparent={HEADER}')


async def test_an_event_loops_header_too(talking: molt_accel.SpawnedClient) -> None:
    header = HEADER.replace(TRACE, "a" * 32)
    before = about(talking, header)
    assert await talking.acall("echo", b"x", "raw", traceparent=header) == b"x"
    assert len(about(talking, header)) == len(before) + 1


@pytest.mark.parametrize("header", ["", "00-12-34-56", HEADER.upper(), "\x00" * 55, "é" * 30, "x" * 100_000])
def test_a_header_that_is_none_is_as_if_there_were_none(talking: molt_accel.SpawnedClient, header: str) -> None:
    before = about(talking, "")
    assert talking.call("echo", b"x", "raw", traceparent=header) == b"x"
    (line,) = about(talking, "")[len(before) :]
    assert "trace_id" not in line


def test_without_a_span_no_trace_is_sent(talking: molt_accel.SpawnedClient) -> None:
    before = about(talking, "")
    talking.call("echo", b"x", "raw")
    (line,) = about(talking, "")[len(before) :]
    assert "trace_id" not in line


async def test_opentelemetrys_current_span_is_taken(
    talking: molt_accel.SpawnedClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = TracerProvider()
    monkeypatch.setattr(trace, "get_tracer", provider.get_tracer)
    monkeypatch.setattr(clients, "stand_in", talking)
    with trace.get_tracer("site").start_as_current_span("view") as span:
        context = span.get_span_context()
        talking.call("echo", b"x", "raw")
        await talking.acall("echo", b"x", "raw")
        talking.query("select 1 as one")
        traceparent = f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
        assert len(about(talking, f"traceparent={traceparent}")) == 3
        # A view's request has a span of its own, in the same trace.
        request = RequestFactory().post("/", "{}", content_type="application/json")
        assert offload(request, entry="echo").status_code == 200
        assert len(about(talking, f"trace_id={context.trace_id:032x}")) == 4
        assert len(about(talking, f"traceparent={traceparent}")) == 3
    provider.shutdown()
