"""The demo's endpoints. Each offloaded view is a plain view and one line."""

import msgspec
from asgiref.sync import sync_to_async
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.http import require_GET, require_POST
from molt_accel import MoltError
from molt_accel.django import client, molt_offload

from orders import baseline as plain
from orders import table_summary
from orders import tuned as fast
from orders.answers import molt_error, python_view
from orders.report import asked, by_orm

ARROW = "application/vnd.apache.arrow.stream"


@require_POST
@python_view
def baseline(request: HttpRequest) -> HttpResponse:
    """The order summary in the Python that a good Django developer writes."""
    return JsonResponse(plain.summarize(request.body))


@require_POST
@python_view
def tuned(request: HttpRequest) -> HttpResponse:
    """The order summary in the fastest pure Python."""
    return HttpResponse(msgspec.json.encode(fast.summarize(request.body)), content_type="application/json")


@require_POST
@molt_offload(entry="order_summary")
def offloaded(request: HttpRequest) -> HttpResponse:
    """The order summary in the worker. The body below would run only with fallback=True."""
    return JsonResponse(plain.summarize(request.body))


@require_POST
@molt_offload(entry="order_summary")
async def offloaded_async(request: HttpRequest) -> HttpResponse:
    """The same for an event loop: waiting for the worker holds no thread."""
    return JsonResponse(await sync_to_async(plain.summarize)(request.body))


@require_POST
@python_view
def baseline_table(request: HttpRequest) -> HttpResponse:
    """The table summary in Python; as JSON, or as Arrow for a client that accepts it."""
    rows = table_summary.summarize(request.body)
    if request.get_preferred_type(["application/json", ARROW]) == ARROW:
        return HttpResponse(table_summary.as_arrow(rows), content_type=ARROW)
    return JsonResponse(rows, safe=False)


@require_POST
@molt_offload(entry="table_summary", codec="arrow")
def offloaded_table(request: HttpRequest) -> HttpResponse:
    """The table summary in the worker, by SQL; the body goes from the socket into shared memory."""
    return JsonResponse(table_summary.summarize(request.body), safe=False)


@require_GET
@python_view
def baseline_report(request: HttpRequest) -> HttpResponse:
    """The sales report by the Django ORM."""
    return JsonResponse(by_orm.report(asked.read(request)), safe=False)


@require_GET
@python_view
@molt_offload(entry="report", params=asked.params)
def offloaded_report(request: HttpRequest) -> HttpResponse:
    """The sales report in the worker, by SQL over tables that lie in shared memory once."""
    return JsonResponse(by_orm.report(asked.read(request)), safe=False)


@require_GET
@python_view
def polars_report(request: HttpRequest) -> HttpResponse:
    """The sales report by Polars in this process."""
    from orders.report import by_polars  # here: no process that answers nothing by it pays for the import

    return _json(by_polars.report(asked.read(request)))


@require_GET
@python_view
def duckdb_report(request: HttpRequest) -> HttpResponse:
    """The sales report by DuckDB in this process."""
    from orders.report import by_duckdb

    return _json(by_duckdb.report(asked.read(request)))


def _json(answer: object) -> HttpResponse:
    """The fastest JSON that Python has: days as ISO 8601, decimals as strings."""
    return HttpResponse(msgspec.json.encode(answer), content_type="application/json")


@require_GET
def health(request: HttpRequest) -> HttpResponse:
    """The worker's state, as the worker itself tells it."""
    try:
        return JsonResponse(client().call("health", {}, timeout=1.0))
    except MoltError as reason:
        return molt_error(request, reason, 503)
