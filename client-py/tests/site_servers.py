"""The site that test_servers.py puts behind every server: settings, views and URLs in one module.

The environment's MOLT_TEST_SHM is the worker's segment; MOLT_TEST_HALF_CLOSED turns CANCEL_ON_HANG_UP off;
MOLT_TEST_ADMISSION is the setting ADMISSION, as JSON.
"""

from __future__ import annotations

import json
import os

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import path

from molt_accel.django import metrics, molt_offload

SECRET_KEY = "tests"
ALLOWED_HOSTS = ["*"]
INSTALLED_APPS = ["molt_accel.django"]
ROOT_URLCONF = __name__
USE_TZ = True
MOLT = {
    "SHM": os.environ["MOLT_TEST_SHM"],
    "TIMEOUT": 20.0,
    "CANCEL_ON_HANG_UP": "MOLT_TEST_HALF_CLOSED" not in os.environ,
    "ADMISSION": json.loads(os.environ.get("MOLT_TEST_ADMISSION", "null")),
}


@molt_offload(entry="compute")
def compute(request: HttpRequest) -> HttpResponse:
    raise AssertionError("offloaded views do not run")


@molt_offload(entry="compute")
async def acompute(request: HttpRequest) -> HttpResponse:
    raise AssertionError("offloaded views do not run")


@molt_offload(entry="slow", payload=[{"a": i} for i in range(3000)])
def slow(request: HttpRequest) -> HttpResponse:
    raise AssertionError("offloaded views do not run")


@molt_offload(entry="slow", payload=[{"a": i} for i in range(3000)])
async def aslow(request: HttpRequest) -> HttpResponse:
    raise AssertionError("offloaded views do not run")


@molt_offload(entry="compute", fallback=True)
def careful(request: HttpRequest) -> HttpResponse:
    return HttpResponse("own code")


@molt_offload(entry="compute", shadow=1.0)
def wrong(request: HttpRequest) -> HttpResponse:
    return JsonResponse({"sum": 0})


urlpatterns = [
    path("compute/", compute),
    path("acompute/", acompute),
    path("slow/", slow),
    path("aslow/", aslow),
    path("careful/", careful),
    path("wrong/", wrong),
    path("metrics/", metrics.view),
]
