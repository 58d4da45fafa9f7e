"""OpenTelemetry spans of offloaded requests."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from django.http import HttpRequest
from django.test import AsyncRequestFactory, RequestFactory
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from molt_accel import MoltUnavailable, testing
from molt_accel._fake_tables import Free
from molt_accel.django import aoffload, offload, tracing


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer", provider.get_tracer)
    yield exporter
    provider.shutdown()


def post() -> HttpRequest:
    return RequestFactory().post("/", "{}", content_type="application/json")


def test_an_offload_is_a_client_span_inside_the_views(spans: InMemorySpanExporter) -> None:
    with testing.fake({"sum": lambda payload, params: 1}), trace.get_tracer("site").start_as_current_span("view"):
        assert offload(post(), entry="sum").status_code == 200
    inner, outer = spans.get_finished_spans()
    assert (inner.name, inner.kind, outer.name) == ("molt sum", trace.SpanKind.CLIENT, "view")
    assert inner.parent is not None and inner.parent.span_id == outer.context.span_id
    assert inner.attributes is not None
    assert inner.attributes["molt.outcome"] == "ok" and inner.attributes["molt.run_us"] == 0
    assert "molt.table_age_s" not in inner.attributes, "it was read from no table of the worker's"


def test_its_span_says_how_old_the_tables_were(spans: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Free, "table_age", 2_501)  # as the library says it: one more than the milliseconds
    with testing.fake({"sum": lambda payload, params: 1}):
        assert offload(post(), entry="sum").status_code == 200
    (span,) = spans.get_finished_spans()
    assert span.attributes is not None and span.attributes["molt.table_age_s"] == 2.5


async def test_a_failure_names_its_outcome_and_no_path(spans: InMemorySpanExporter) -> None:
    def gone(payload: Any, params: Any) -> Any:
        raise MoltUnavailable("there is no segment /molt0")

    request = AsyncRequestFactory().post("/", "{}", content_type="application/json")
    with testing.fake({"sum": gone}):
        assert (await aoffload(request, entry="sum")).status_code == 503
    (span,) = spans.get_finished_spans()
    assert span.attributes is not None and span.attributes["molt.outcome"] == "unavailable"
    assert span.status.status_code is trace.StatusCode.ERROR and "/molt0" not in span.to_json()


async def test_a_view_that_is_cancelled_says_so(spans: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch) -> None:
    with testing.fake({}) as fake:
        waits = asyncio.Event()

        async def wait(*args: Any) -> Any:
            waits.set()
            await asyncio.Event().wait()

        monkeypatch.setattr(fake, "aexchange", wait)
        request = AsyncRequestFactory().post("/", "{}", content_type="application/json")
        task = asyncio.create_task(aoffload(request, entry="sum"))
        await waits.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    (span,) = spans.get_finished_spans()
    assert span.attributes is not None and span.attributes["molt.outcome"] == "cancelled"
    assert span.status.status_code is trace.StatusCode.ERROR


def test_without_opentelemetry_nothing_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "trace", None)
    with testing.fake({"sum": lambda payload, params: 1}):
        assert offload(post(), entry="sum").status_code == 200
