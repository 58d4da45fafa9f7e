"""The project's settings, views and URLs."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.urls import path

from molt_accel.django import molt_offload

SECRET_KEY = "tests"
INSTALLED_APPS = ["molt_accel.django"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
ROOT_URLCONF = __name__
USE_TZ = True
MOLT = {"SHM": "/molt-tests-nobody", "ARENA": "16MiB", "WORKER_ARGS": ["--threads", "1"]}


@molt_offload(entry="compute")
def compute(request: HttpRequest) -> HttpResponse:
    raise AssertionError("offloaded views do not run")


urlpatterns = [path("compute/", compute)]
