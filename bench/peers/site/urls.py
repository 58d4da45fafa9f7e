"""The demo's endpoints and /peer/, which the module in MOLT_BENCH_VIEW answers: no process imports another peer."""

import os
from importlib import import_module

from demo.urls import handler400, handler404, handler500
from demo.urls import urlpatterns as demo
from django.http import HttpRequest, HttpResponse
from django.urls import path
from django.views.decorators.http import require_POST
from orders.answers import python_view

__all__ = ["handler400", "handler404", "handler500", "urlpatterns"]

answer = import_module(os.environ["MOLT_BENCH_VIEW"]).answer


@require_POST
@python_view
def peer(request: HttpRequest) -> HttpResponse:
    """The peer's own answer, as JSON bytes."""
    return HttpResponse(answer(request.body), content_type="application/json")


urlpatterns = [path("peer/", peer), *demo]
