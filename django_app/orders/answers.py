"""The one shape in which every endpoint reports an error: `{"error", "index", "field"}`."""

from collections.abc import Callable
from functools import wraps

from django.core.exceptions import RequestDataTooBig
from django.http import HttpRequest, HttpResponse, JsonResponse
from molt_accel import MoltError

from orders.errors import DataMissing, OrderError


def error_body(message: str, index: int | None = None, field: str | None = None) -> dict[str, str | int | None]:
    """What is wrong, in which order line (counted from 0) and in which field, where the fault lies in one."""
    return {"error": message, "index": index, "field": field}


def error(message: str, status: int) -> JsonResponse:
    """An error that lies in no line."""
    return JsonResponse(error_body(message), status=status)


def molt_error(request: HttpRequest, reason: MoltError, status: int) -> HttpResponse:
    """What an offloaded view answers in place of a result (MOLT["ERROR_RESPONSE"] names this function).

    A caller reads in full what is wrong with the request, and of the server's own trouble no more than its kind: the
    message with names and numbers is in the log.
    """
    if status >= 500:
        return error(f"the worker gives no answer: {reason.outcome}", status)
    details = reason.details if isinstance(reason.details, dict) else {}
    return JsonResponse(error_body(reason.message, details.get("index"), details.get("field")), status=status)


def python_view(view: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    """Gives a plain Python view the errors that an offloaded one has."""

    @wraps(view)
    def answer(request: HttpRequest) -> HttpResponse:
        try:
            return view(request)
        except OrderError as reason:
            return JsonResponse(reason.as_dict(), status=400)
        except DataMissing as reason:
            return error(str(reason), 409)  # as the worker says it of a table that nobody has put
        except RequestDataTooBig:
            return error("the request body is too large", 413)

    return answer


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Django's handler400."""
    return error("this request cannot be read", 400)


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Django's handler404."""
    return error("there is no such endpoint", 404)


def server_error(request: HttpRequest) -> HttpResponse:
    """Django's handler500: the reason is in the log, not in the answer."""
    return error("this request failed on the server", 500)
