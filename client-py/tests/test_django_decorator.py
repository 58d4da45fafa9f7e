"""What `@molt_offload` refuses: a view that is already wrapped, because it would skip the wrappers."""

from __future__ import annotations

import linecache
from functools import partial

import pytest
from django.contrib.auth.decorators import login_required
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest, HttpResponse
from django.test import AsyncRequestFactory, RequestFactory
from django.utils.decorators import method_decorator
from django.views import View
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from molt_accel.django import decorator, molt_offload
from stub import StubClient


def bare(request: HttpRequest) -> HttpResponse:
    """A view."""
    return HttpResponse("bare")


async def bare_async(request: HttpRequest) -> HttpResponse:
    return HttpResponse("bare")


class Classy(View):
    def get(self, request: HttpRequest) -> HttpResponse:
        return HttpResponse()


def rest_framework_view(request: HttpRequest) -> HttpResponse:
    return HttpResponse()


rest_framework_view.cls = Classy


@pytest.mark.parametrize(
    ("view", "layer"),
    [
        (login_required(bare), "django.contrib.auth.decorators.user_passes_test"),
        (csrf_exempt(bare), "django.views.decorators.csrf.csrf_exempt"),
        (require_POST(csrf_exempt(bare)), "django.views.decorators.http.require_http_methods, django.views.decorators"),
        (login_required(bare_async), "django.contrib.auth.decorators"),
        (partial(login_required(bare), x=1), "django.contrib.auth.decorators.user_passes_test"),
        (Classy.as_view(), "the dispatch of test_django_decorator.Classy"),
        (Classy, "the class test_django_decorator.Classy"),
        (rest_framework_view, "the dispatch of test_django_decorator.Classy"),
        (molt_offload(entry="other")(bare), "molt_accel.django.decorator.molt_offload"),
    ],
)
def test_a_wrapped_view_is_refused_with_the_layers_it_would_skip(view: object, layer: str) -> None:
    with pytest.raises(ImproperlyConfigured) as refused:
        molt_offload(entry="compute")(view)
    assert f"would skip {layer}" in str(refused.value) and "hint: put it innermost" in str(refused.value)


def test_a_bare_view_keeps_its_name_and_may_be_wrapped_afterwards() -> None:
    view = molt_offload(entry="compute")(bare)
    assert (view.__name__, view.__doc__, view.molt_entry) == ("bare", "A view.", "compute")
    assert login_required(view).__wrapped__ is view


def test_an_unknown_codec_stops_at_import() -> None:
    with pytest.raises(ValueError, match="unknown codec 'xml'"):
        molt_offload(entry="compute", codec="xml")


def test_the_checks_know_the_entries_of_methods_before_a_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decorator, "views", {})

    @method_decorator(molt_offload(entry="of_a_class"), name="post")
    class Short(View):
        def post(self, request: HttpRequest) -> HttpResponse: ...

        @method_decorator(molt_offload(entry="of_a_method"))
        def get(self, request: HttpRequest) -> HttpResponse: ...

    (of_class,), (of_method,) = decorator.views["of_a_class"], decorator.views["of_a_method"]
    for where, entry in ((of_class, "of_a_class"), (of_method, "of_a_method")):
        module, _, number = where.partition(", line ")
        assert module == __name__ and f'entry="{entry}"' in linecache.getline(__file__, int(number))


class Methods(View):
    @method_decorator(molt_offload(entry="compute"))
    def post(self, request: HttpRequest, plan: str) -> HttpResponse: ...


class AsyncMethods(View):
    @method_decorator([require_POST, molt_offload(entry="compute")])
    async def post(self, request: HttpRequest, plan: str) -> HttpResponse: ...


class Inherited(Methods):
    pass


def test_a_method_is_looked_at_once_and_not_for_every_request(
    stub: StubClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[object] = []
    look = decorator._refuse_wrapped
    monkeypatch.setattr(decorator, "_refuse_wrapped", lambda view, entry: looks.append(view) or look(view, entry))
    for view in (Methods.as_view(), Inherited.as_view()):
        looks.clear()
        for _ in range(3):
            request = RequestFactory().post("/", {}, content_type="application/json")
            assert view(request, plan="a URL argument of any name").status_code == 200
        assert len(looks) == 1, "another class may have another dispatch"
    assert len(stub.sent) == 6


async def test_so_is_an_async_method(stub: StubClient, monkeypatch: pytest.MonkeyPatch) -> None:
    view, factory = AsyncMethods.as_view(), AsyncRequestFactory()
    assert (await view(factory.post("/", {}, content_type="application/json"), plan="x")).status_code == 200
    monkeypatch.setattr(decorator, "_refuse_wrapped", None)  # not called
    assert (await view(factory.post("/", {}, content_type="application/json"), plan="x")).status_code == 200
    assert len(stub.sent) == 2


def test_a_method_is_told_to_use_offload() -> None:
    class Method:
        @molt_offload(entry="compute")
        def post(self, request: HttpRequest) -> HttpResponse:
            return HttpResponse()

    with pytest.raises(TypeError, match="hint: in a class-based view"):
        Method().post(RequestFactory().post("/"))
