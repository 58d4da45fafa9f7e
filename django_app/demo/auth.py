"""API tokens: every endpoint, present and future, answers 401 to a caller without one."""

from collections.abc import Awaitable, Callable
from hashlib import sha256
from hmac import compare_digest
from inspect import iscoroutinefunction

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.utils.decorators import sync_and_async_middleware

from orders.answers import error


def caller(request: HttpRequest) -> str | None:
    """The name of the caller whose token the request carries, or None.

    Tokens are random and long, so one round of SHA-256 is enough, and each is compared in constant time.
    """
    scheme, _, token = request.META.get("HTTP_AUTHORIZATION", "").partition(" ")
    if scheme.lower() != "bearer":
        return None
    given = sha256(token.encode()).digest()
    return next((name for name, known in settings.API_TOKENS.items() if compare_digest(given, known)), None)


@sync_and_async_middleware
def token_required(
    get_response: Callable[[HttpRequest], HttpResponse | Awaitable[HttpResponse]],
) -> Callable[[HttpRequest], HttpResponse | Awaitable[HttpResponse]]:
    """Middleware that lets a request through only with a known token.

    A middleware and not a decorator: a view that somebody adds tomorrow is protected without being told to, an unknown
    address tells a stranger nothing, and the body of a refused request is never read.
    """

    def refused(request: HttpRequest) -> HttpResponse | None:
        request.caller = caller(request)
        if request.caller is not None:
            return None
        response = error("this server needs an API token; hint: send Authorization: Bearer TOKEN", 401)
        response["WWW-Authenticate"] = "Bearer"
        return response

    if iscoroutinefunction(get_response):

        async def check(request: HttpRequest) -> HttpResponse:
            return refused(request) or await get_response(request)
    else:

        def check(request: HttpRequest) -> HttpResponse:
            return refused(request) or get_response(request)

    return check
