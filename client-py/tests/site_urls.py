"""The site that test_worker_django.py serves: what a user would write."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.urls import path

from molt_accel.django import aoffload, molt_offload, offload


@molt_offload(entry="compute")
def compute(request: HttpRequest) -> HttpResponse:
    raise AssertionError("offloaded views do not run")


@molt_offload(entry="compute")
async def acompute(request: HttpRequest) -> HttpResponse:
    raise AssertionError("offloaded views do not run")


@molt_offload(entry="echo", codec="raw")
def echo(request: HttpRequest) -> HttpResponse:
    raise AssertionError("offloaded views do not run")


@molt_offload(entry="echo")
def arguments(request: HttpRequest, pk: int) -> HttpResponse:
    raise AssertionError("offloaded views do not run")


@molt_offload(entry="echo", fallback=True)
def careful(request: HttpRequest) -> HttpResponse:
    return HttpResponse(b"own code: " + request.body)


def inside(request: HttpRequest) -> HttpResponseBase:
    """Checks first, then hands over."""
    if "HTTP_X_SCALE" not in request.META:
        return HttpResponse(status=401)
    return offload(request, entry="compute", params={"scale": int(request.META["HTTP_X_SCALE"])}, response=_sum)


async def ainside(request: HttpRequest) -> HttpResponseBase:
    return await aoffload(request, entry="compute", timeout=10.0, payload={"values": [1, 2]}, response=_sum)


def _sum(request: HttpRequest, answer: Any) -> Any:
    return {"sum": answer["sum"], "scaled": answer["scaled"]}


urlpatterns = [
    path("compute/", compute),
    path("acompute/", acompute),
    path("echo/", echo),
    path("arguments/<int:pk>/", arguments),
    path("careful/", careful),
    path("inside/", inside),
    path("ainside/", ainside),
]
