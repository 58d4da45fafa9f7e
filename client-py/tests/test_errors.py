"""Outcomes and their exceptions."""

from __future__ import annotations

import pickle

import msgpack
import pytest

import molt_accel
from molt_accel.errors import BY_NUMBER, error

TABLE = [
    (1, molt_accel.MoltInvalidInput, "invalid_input", 400),
    (2, molt_accel.MoltUnknownEntry, "unknown_entry", 500),
    (3, molt_accel.MoltTooLarge, "too_large", 413),
    (4, molt_accel.MoltCancelled, "cancelled", 499),
    (5, molt_accel.MoltBusy, "busy", 503),
    (6, molt_accel.MoltTimeout, "timeout", 504),
    (7, molt_accel.MoltUnavailable, "unavailable", 503),
    (8, molt_accel.MoltWorkerLost, "worker_lost", 502),
    (9, molt_accel.MoltInternalError, "internal", 500),
]


@pytest.mark.parametrize(("number", "kind", "outcome", "status"), TABLE)
def test_every_outcome_has_its_exception(number: int, kind: type, outcome: str, status: int) -> None:
    raised = error(number, "a message", entry="compute")
    assert type(raised) is kind and isinstance(raised, molt_accel.MoltError)
    assert (raised.outcome, raised.http_status, raised.status) == (outcome, status, None)
    assert (str(raised), raised.entry, raised.details) == ("a message", "compute", None)


def test_the_table_is_whole() -> None:
    assert sorted(BY_NUMBER) == [row[0] for row in TABLE]


def test_an_entry_may_choose_the_status_and_give_details() -> None:
    raised = error(1, "no such order", status=404, details=msgpack.packb({"id": 7}))
    assert (raised.http_status, raised.details) == (404, {"id": 7})


def test_busy_says_when_to_come_back() -> None:
    assert error(5, "full").retry_after == 1.0
    assert error(5, "full", details=msgpack.packb({"retry_after": 0.25})).retry_after == 0.25
    assert error(6, "late").retry_after is None


def test_details_that_are_no_msgpack_do_not_hide_the_message() -> None:
    raised = error(1, "the message", details=b"\xc1")
    assert (str(raised), raised.details) == ("the message", None)


def test_an_outcome_of_a_later_version_is_an_internal_error() -> None:
    assert "outcome 42 is unknown" in str(error(42, "?"))


def test_errors_survive_pickling() -> None:
    raised = error(1, "no", entry="e", status=422, details=msgpack.packb({"field": "qty"}))
    copy = pickle.loads(pickle.dumps(raised))
    assert (type(copy), str(copy), copy.__dict__) == (type(raised), str(raised), raised.__dict__)
