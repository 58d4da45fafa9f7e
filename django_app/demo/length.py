"""Content-Length on every answer."""

from collections.abc import Awaitable, Callable
from inspect import iscoroutinefunction

from django.http import HttpRequest, HttpResponse
from django.utils.decorators import sync_and_async_middleware


def measured(response: HttpResponse) -> HttpResponse:
    """Sets the length. Without one, gunicorn sends chunks and runserver closes the connection."""
    response.headers["Content-Length"] = str(len(response.content))
    return response


@sync_and_async_middleware
def content_length(
    get_response: Callable[[HttpRequest], HttpResponse | Awaitable[HttpResponse]],
) -> Callable[[HttpRequest], HttpResponse | Awaitable[HttpResponse]]:
    """Middleware for the one thing that this project needs of Django's CommonMiddleware, which under ASGI costs two
    switches between event loop and thread for each request."""
    if iscoroutinefunction(get_response):

        async def answer(request: HttpRequest) -> HttpResponse:
            return measured(await get_response(request))
    else:

        def answer(request: HttpRequest) -> HttpResponse:
            return measured(get_response(request))

    return answer
