"""Views of every kind keep what stands around them: class-based ones, Django REST framework's, ninja's, middleware."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import ninja
import pytest
from django.contrib.auth.decorators import permission_required
from django.contrib.auth.mixins import LoginRequiredMixin
from django.core.cache import cache
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.test import AsyncClient, Client, override_settings
from django.urls import path
from django.utils.decorators import method_decorator
from django.views import View
from django.views.decorators.csrf import csrf_protect
from django.views.decorators.http import require_POST
from ninja.security import HttpBearer
from rest_framework.authentication import BasicAuthentication, SessionAuthentication
from rest_framework.decorators import api_view, authentication_classes, permission_classes, throttle_classes
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.permissions import BasePermission, IsAuthenticated
from rest_framework.request import Request
from rest_framework.throttling import SimpleRateThrottle
from rest_framework.views import APIView

from molt_accel import testing
from molt_accel.django import molt_offload, offload

NUMBERS = {"values": [1, 2, 3]}


class Basic(BasicAuthentication):
    def authenticate_credentials(self, userid: str, password: str, request: Any = None) -> Any:
        if password != "secret":
            raise AuthenticationFailed
        return SimpleNamespace(is_authenticated=True, pk=7, name=userid), None


class Twice(SimpleRateThrottle):
    rate = "2/day"

    def get_cache_key(self, request: Any, view: Any) -> str:
        return "twice"


def who(request: Any) -> dict[str, Any]:
    return {"who": request.user.name}


@api_view(["POST"])
@authentication_classes([Basic])
@permission_classes([IsAuthenticated])
@throttle_classes([Twice])
@molt_offload(entry="sum", params=who, fallback=True)
def drf_function(request: Request) -> HttpResponse:
    return JsonResponse({"own": request.data["values"]})


class DrfClass(APIView):
    authentication_classes = (Basic,)
    permission_classes = (IsAuthenticated,)

    def post(self, request: Request) -> Any:
        return offload(request, entry="sum", params=who)

    def put(self, request: Request) -> Any:
        return offload(request, entry="sum", payload=request.data, params=who)


class Nobody(BasePermission):
    def has_permission(self, request: Any, view: Any) -> bool:
        return False


@api_view(["POST"])
@authentication_classes([Basic])
@permission_classes([IsAuthenticated, Nobody])
@molt_offload(entry="sum", fallback=True)
def drf_forbidden(request: Request) -> HttpResponse:
    raise AssertionError("never reached")


@api_view(["POST"])
@authentication_classes([SessionAuthentication])
@permission_classes([IsAuthenticated])
@molt_offload(entry="sum")
def drf_session(request: Request) -> HttpResponse:
    raise AssertionError("offloaded views do not run")


@permission_required("shop.add_order", raise_exception=True)
@molt_offload(entry="sum", fallback=True)
def forbidden(request: HttpRequest) -> HttpResponse:
    raise AssertionError("never reached")


class Plain(LoginRequiredMixin, View):
    raise_exception = True

    def post(self, request: HttpRequest) -> Any:
        return offload(request, entry="sum")


@method_decorator(molt_offload(entry="sum"), name="post")
class Decorated(LoginRequiredMixin, View):
    raise_exception = True

    def post(self, request: HttpRequest) -> HttpResponse:
        raise AssertionError("offloaded methods do not run")


@method_decorator(molt_offload(entry="sum"), name="post")
class AsyncDecorated(LoginRequiredMixin, View):
    raise_exception = True

    async def post(self, request: HttpRequest) -> HttpResponse:
        raise AssertionError("offloaded methods do not run")


@method_decorator(molt_offload(entry="sum"), name="dispatch")
class Bare(LoginRequiredMixin, View):
    def post(self, request: HttpRequest) -> HttpResponse:
        raise AssertionError("never reached")


@csrf_protect
@require_POST
@molt_offload(entry="sum")
def protected(request: HttpRequest) -> HttpResponse:
    raise AssertionError("offloaded views do not run")


class Token(HttpBearer):
    def authenticate(self, request: HttpRequest, token: str) -> str | None:
        return token if token == "secret" else None


def signed_in(get_response: Any) -> Any:
    """Middleware in place of sessions: whoever sends X-User is signed in."""

    def middleware(request: HttpRequest) -> Any:
        known = "x-user" in request.headers
        request.user = SimpleNamespace(  # type: ignore[assignment]
            is_authenticated=known, is_active=known, has_perms=lambda names: "x-may" in request.headers
        )
        return get_response(request)

    return middleware


api = ninja.NinjaAPI(urls_namespace="molt-tests")


class Numbers(ninja.Schema):
    values: list[int]


@api.post("/sum", auth=Token())
@molt_offload(entry="sum")
def ninja_sum(request: HttpRequest, numbers: Numbers) -> Any:
    raise AssertionError("offloaded views do not run")


def direct(request: HttpRequest) -> HttpResponse:
    return JsonResponse(request.molt.call("sum", NUMBERS))  # type: ignore[attr-defined]


async def adirect(request: HttpRequest) -> HttpResponse:
    return JsonResponse(await request.molt.acall("sum", NUMBERS))  # type: ignore[attr-defined]


urlpatterns = [
    path("drf/", drf_function),
    path("drf-class/", DrfClass.as_view()),
    path("drf-forbidden/", drf_forbidden),
    path("drf-session/", drf_session),
    path("forbidden/", forbidden),
    path("async-decorated/", AsyncDecorated.as_view()),
    path("plain/", Plain.as_view()),
    path("decorated/", Decorated.as_view()),
    path("bare/", Bare.as_view()),
    path("protected/", protected),
    path("ninja/", api.urls),
    path("direct/", direct),
    path("adirect/", adirect),
]


@pytest.fixture(autouse=True)
def fake() -> Iterator[testing.Fake]:
    def add(payload: Any, params: Any) -> Any:
        return {"sum": sum(payload["values"]), **params}

    cache.clear()
    middleware = [f"{__name__}.signed_in"]
    with override_settings(ROOT_URLCONF=__name__, MIDDLEWARE=middleware), testing.fake({"sum": add}) as stand_in:
        yield stand_in


def basic(password: str) -> dict[str, str]:
    return {"authorization": "Basic " + base64.b64encode(f"ann:{password}".encode()).decode()}


@pytest.mark.parametrize("url", ["/drf/", "/drf-class/"])
def test_rest_framework_authenticates_first(fake: testing.Fake, url: str) -> None:
    site = Client()
    assert site.post(url, NUMBERS, content_type="application/json").status_code == 401
    assert site.post(url, NUMBERS, content_type="application/json", headers=basic("wrong")).status_code in (401, 403)
    assert fake.calls == []
    response = site.post(url, NUMBERS, content_type="application/json", headers=basic("secret"))
    assert response.json() == {"sum": 6, "who": "ann"}


def test_who_is_known_and_may_not_is_a_403_and_reaches_no_worker(fake: testing.Fake) -> None:
    site = Client()
    assert site.post("/drf-forbidden/", NUMBERS, content_type="application/json").status_code == 401
    known = basic("secret")
    assert site.post("/drf-forbidden/", NUMBERS, content_type="application/json", headers=known).status_code == 403
    ann = {"x-user": "ann"}
    assert site.post("/forbidden/", NUMBERS, content_type="application/json", headers=ann).status_code == 403
    assert fake.calls == []
    ann["x-may"] = "1"
    assert site.post("/forbidden/", NUMBERS, content_type="application/json", headers=ann).json() == {"sum": 6}


def test_session_authentication_of_rest_framework_keeps_its_csrf_check(fake: testing.Fake) -> None:
    site, ann = Client(enforce_csrf_checks=True), {"x-user": "ann"}
    refused = site.post("/drf-session/", NUMBERS, content_type="application/json", headers=ann)
    assert refused.status_code == 403 and "CSRF" in refused.json()["detail"]
    assert site.post("/drf-session/", NUMBERS, content_type="application/json").status_code == 403
    assert fake.calls == []
    token = "a" * 32
    site.cookies["csrftoken"] = token
    ann["x-csrftoken"] = token
    answer = site.post("/drf-session/", NUMBERS, content_type="application/json", headers=ann)
    assert answer.json() == {"sum": 6}


def test_rest_framework_throttles_and_keeps_its_methods(fake: testing.Fake) -> None:
    site = Client()
    statuses = [
        site.post("/drf/", NUMBERS, content_type="application/json", headers=basic("secret")).status_code
        for _ in range(3)
    ]
    assert statuses == [200, 200, 429] and len(fake.calls) == 2
    cache.clear()
    assert site.delete("/drf/", headers=basic("secret")).status_code == 405


def test_what_rest_framework_has_parsed_can_be_handed_over() -> None:
    site = Client()
    response = site.put("/drf-class/", NUMBERS, content_type="application/json", headers=basic("secret"))
    assert response.json() == {"sum": 6, "who": "ann"}


def test_the_fallback_of_a_rest_framework_view_finds_its_data() -> None:
    with testing.fake({}), override_settings(MOLT={"SHM": "/molt-tests-nobody", "OFFLOAD": False}):
        response = Client().post("/drf/", NUMBERS, content_type="application/json", headers=basic("secret"))
    assert response.json() == {"own": [1, 2, 3]}


@pytest.mark.parametrize("url", ["/plain/", "/decorated/"])
def test_mixins_of_class_based_views_run(fake: testing.Fake, url: str) -> None:
    site = Client()
    assert site.post(url, NUMBERS, content_type="application/json").status_code == 403
    assert fake.calls == []
    ann = {"x-user": "ann"}
    assert site.get(url, headers=ann).status_code == 405
    assert site.post(url, NUMBERS, content_type="application/json", headers=ann).json() == {"sum": 6}
    assert len(fake.calls) == 1


async def test_an_async_method_of_a_class_based_view(fake: testing.Fake) -> None:
    site, ann = AsyncClient(), {"x-user": "ann"}
    for _ in range(2):  # the second time by what the first one found out
        answer = await site.post("/async-decorated/", NUMBERS, content_type="application/json", headers=ann)
        assert answer.json() == {"sum": 6}
    assert len(fake.calls) == 2
    assert (await site.post("/async-decorated/", NUMBERS, content_type="application/json")).status_code == 403
    assert (await site.get("/async-decorated/", headers=ann)).status_code == 405
    assert len(fake.calls) == 2


def test_a_decorated_dispatch_is_refused_with_the_mixins_it_would_skip(fake: testing.Fake) -> None:
    with pytest.raises(ImproperlyConfigured, match=r"would skip .*LoginRequiredMixin\.dispatch"):
        Client().post("/bare/", NUMBERS, content_type="application/json")
    assert fake.calls == []


def test_csrf_protection_runs(fake: testing.Fake) -> None:
    site = Client(enforce_csrf_checks=True)
    assert site.post("/protected/", NUMBERS, content_type="application/json").status_code == 403
    assert fake.calls == []
    token = "a" * 32
    site.cookies["csrftoken"] = token
    response = site.post("/protected/", NUMBERS, content_type="application/json", headers={"x-csrftoken": token})
    assert response.json() == {"sum": 6}


def test_ninja_authenticates_and_validates_first(fake: testing.Fake) -> None:
    site = Client()
    assert site.post("/ninja/sum", NUMBERS, content_type="application/json").status_code == 401
    bearer = {"authorization": "Bearer secret"}
    wrong = site.post("/ninja/sum", {"values": ["x"]}, content_type="application/json", headers=bearer)
    assert wrong.status_code == 422 and fake.calls == []
    assert site.post("/ninja/sum", NUMBERS, content_type="application/json", headers=bearer).json() == {"sum": 6}


def test_the_middleware_gives_views_the_client() -> None:
    with override_settings(MIDDLEWARE=["molt_accel.django.middleware.MoltMiddleware"]):
        assert Client().get("/direct/").json() == {"sum": 6}


async def test_the_middleware_under_asgi() -> None:
    with override_settings(MIDDLEWARE=["molt_accel.django.middleware.MoltMiddleware"]):
        assert (await AsyncClient().get("/adirect/")).json() == {"sum": 6}
        assert (await AsyncClient().get("/direct/")).json() == {"sum": 6}


def test_the_middleware_attaches_nothing_by_itself() -> None:
    from molt_accel.django import clients

    clients.stand_in = None
    with override_settings(
        MIDDLEWARE=["molt_accel.django.middleware.MoltMiddleware"], MOLT={"SHM": "/molt-tests-nobody"}
    ):
        assert Client().get("/drf/").status_code == 401
        assert json.loads(json.dumps(repr(clients.client()))).endswith("not attached>")
