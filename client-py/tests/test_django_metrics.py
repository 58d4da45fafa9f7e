"""Prometheus metrics of the client's side: in one process, and summed over the processes of a real server."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.http import HttpRequest
from django.test import RequestFactory
from prometheus_client import REGISTRY
from prometheus_client.parser import text_string_to_metric_families

import molt_accel
from conftest import BARE, until
from molt_accel.breaker import FAILURES
from molt_accel.django import metrics, offload
from molt_accel.errors import MoltBusy
from serving import CLIENTS, NUMBERS, Server, Site
from stub import StubClient

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]
"""Values by name and labels, without those of processes."""


def samples(text: str) -> Samples:
    """What a scraper reads."""
    return {
        (sample.name, tuple(sorted((key, value) for key, value in sample.labels.items() if key != "pid"))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def of(read: Samples, name: str, **labels: str) -> float:
    return read.get((f"molt_client_{name}", tuple(sorted(labels.items()))), 0.0)


def grown(read: Callable[[], Samples], act: Callable[[], Any]) -> Callable[..., float]:
    """How much a value grew while `act` ran."""
    before = read()
    act()
    after = read()
    return lambda name, **labels: of(after, name, **labels) - of(before, name, **labels)


def post() -> HttpRequest:
    return RequestFactory().post("/", b"{}", "application/json")


def here() -> Samples:
    return samples(metrics.view(HttpRequest()).content.decode())


def test_every_request_is_counted_by_its_outcome(stub: StubClient) -> None:
    more = grown(here, lambda: offload(post(), entry="counted"))
    assert more("requests_total", entry="counted", outcome="ok") == 1
    assert more("request_seconds_count", entry="counted") == 1
    stub.answer = MoltBusy("full")
    more = grown(here, lambda: offload(post(), entry="counted"))
    assert more("requests_total", entry="counted", outcome="busy") == 1
    assert more("requests_total", entry="counted", outcome="ok") == 0


def test_what_was_refused_before_it_was_sent_is_counted_too(stub: StubClient) -> None:
    stub.session_error = molt_accel.MoltUnavailable("nobody")
    more = grown(here, lambda: offload(post(), entry="unsent"))
    assert more("requests_total", entry="unsent", outcome="unavailable") == 1


def test_without_the_package_nothing_is_counted_and_the_view_says_so(
    stub: StubClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "prometheus", None)
    assert offload(post(), entry="uncounted").status_code == 200
    assert metrics.view(HttpRequest()).status_code == 501
    assert REGISTRY.get_sample_value("molt_client_requests_total", {"entry": "uncounted", "outcome": "ok"}) is None


GUNICORN = Server("{python} -m gunicorn -w 2 -b 127.0.0.1:{port} site_wsgi:application", "wsgi")


def get(site: Site, path: str) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=60)
    if path == "/metrics/":
        connection.request("GET", path)
    else:
        connection.request("POST", path, json.dumps(NUMBERS), {"content-type": "application/json"})
    text = connection.getresponse().read().decode()
    connection.close()
    return text


def test_the_processes_of_a_server_are_summed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "metrics"
    folder.mkdir()
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(folder))
    with molt_accel.spawn(BARE, arena="32MiB", threads=2) as worker:
        site = Site(GUNICORN, worker.shm, tmp_path / "server.log")
        try:
            asked = 0

            def both_have_served() -> bool:
                nonlocal asked
                asked += 5 * CLIENTS
                assert site.ask_all(5 * CLIENTS) == {200}
                return len(list(folder.glob("counter_*.db"))) == 2

            def read() -> Samples:
                return samples(get(site, "/metrics/"))

            until(both_have_served, "both processes have served", 60)
            now = read()
            assert of(now, "requests_total", entry="compute", outcome="ok") == asked
            assert of(now, "request_seconds_count", entry="compute") == asked
            assert 0 < of(now, "request_seconds_sum", entry="compute") < 60 * asked
            assert get(site, "/careful/") != "own code"
            get(site, "/wrong/")
            now = read()
            assert of(now, "shadow_total", entry="compute", result="differed") == 1
            assert of(now, "fallbacks_total", entry="compute", outcome="unavailable") == 0

            worker.worker.kill()
            worker.worker.wait()
            fallbacks = 0

            def both_are_open() -> bool:
                nonlocal fallbacks
                fallbacks += get(site, "/careful/") == "own code"
                return of(read(), "breaker_open") == 2

            until(both_are_open, f"both breakers are open: {site.log.read_text()}", 60)
            now = read()
            fell_back = sum(
                of(now, "fallbacks_total", entry="compute", outcome=o) for o in ("unavailable", "worker_lost")
            )
            assert fell_back == fallbacks >= 2 * FAILURES
            assert of(now, "requests_total", entry="compute", outcome="unavailable") >= 2 * (FAILURES - 1)

            with molt_accel.spawn(BARE, arena="32MiB", shm=worker.shm):

                def both_are_closed() -> bool:
                    assert get(site, "/careful/") != "own code"
                    return of(read(), "breaker_open") == 0

                until(both_are_closed, "both breakers are closed", 60)
            site.stop()
        finally:
            site.kill()
