"""The endpoints of the demo."""

from django.urls import path

from orders import views

urlpatterns = [
    path("baseline/", views.baseline),
    path("tuned/", views.tuned),
    path("offload/", views.offloaded),
    path("aoffload/", views.offloaded_async),
    path("baseline/table/", views.baseline_table),
    path("offload/table/", views.offloaded_table),
    path("baseline/report/", views.baseline_report),
    path("offload/report/", views.offloaded_report),
    path("polars/report/", views.polars_report),
    path("duckdb/report/", views.duckdb_report),
    path("health/", views.health),
]

handler400 = "orders.answers.bad_request"
handler404 = "orders.answers.not_found"
handler500 = "orders.answers.server_error"
