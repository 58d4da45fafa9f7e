"""The settings dict: read late, checked by key, renewed when a test overrides it."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings

from conftest import in_child
from molt_accel.django import client, clients, metrics, settings


def test_defaults() -> None:
    checked = settings.check({})
    assert checked[:7] == ("/molt0", None, 5.0, 64 * 2**20, 0.0, 503, None)
    assert checked[7:] == (True, True, None, None, None, (), {}, None)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"TIMOUT": 1}, r"MOLT\['TIMOUT'\] is unknown. hint: did you mean 'TIMEOUT'\?"),
        ({"shm": "/x"}, r"MOLT\['shm'\] is unknown. hint: did you mean 'SHM'\?"),
        ({"QQQ": 1}, r"known keys: SHM, SOCKET, TIMEOUT, MAX_BODY"),
        ({"TIMEOUT": "5"}, r"MOLT\['TIMEOUT'\] is '5'. hint: give seconds, over 0"),
        ({"TIMEOUT": 0}, r"MOLT\['TIMEOUT'\] is 0"),
        ({"MAX_BODY": 1.5}, r"MOLT\['MAX_BODY'\] is 1.5"),
        ({"MAX_BODY": True}, r"MOLT\['MAX_BODY'\] is True"),
        ({"ATTACH_WAIT": -1}, r"MOLT\['ATTACH_WAIT'\] is -1"),
        ({"BUSY_STATUS": 500}, r"MOLT\['BUSY_STATUS'\] is 500. hint: give 503 or 429"),
        ({"SHM": ""}, r"MOLT\['SHM'\] is ''"),
        ({"SOCKET": ""}, r"MOLT\['SOCKET'\] is ''. hint: give a path"),
        ({"ERROR_RESPONSE": "no.such.thing"}, r"MOLT\['ERROR_RESPONSE'\] is 'no.such.thing'"),
        ({"OFFLOAD": "no"}, r"MOLT\['OFFLOAD'\] is 'no'. hint: give True or False"),
        ({"SERVER_TIMING": 1}, r"MOLT\['SERVER_TIMING'\] is 1"),
        ({"EXPORTS": ["a"]}, r"MOLT\['EXPORTS'\] is \['a'\]. hint: give the manifest's path"),
        ({"ARENA": 0}, r"MOLT\['ARENA'\] is 0"),
        ({"ARENA": "1.5GiB"}, r"MOLT\['ARENA'\] is '1.5GiB'. hint: give 'auto', a size such as '256MiB' or bytes"),
        ({"WORKER_ARGS": "--threads 4"}, r"MOLT\['WORKER_ARGS'\] is '--threads 4'. hint: give a list of strings"),
        ({"TABLES": ["a"]}, r"MOLT\['TABLES'\] is \['a'\]"),
        ({"TABLES": {"a": {}}}, r"MOLT\['TABLES'\]\['a'\] is {}. hint: give {'queryset'"),
        ({"TABLES": {"a": {"queryset": "b.c", "refesh": 1}}}, r"\['refesh'\] is unknown. hint: did you mean 'refresh'"),
        ({"TABLES": {"a": {"queryset": "b.c", "refresh": 0}}}, r"\['a'\]\['refresh'\] is 0. hint: give seconds"),
        ({"ADMISSION": ["/a/"]}, r"MOLT\['ADMISSION'\] is \['/a/'\]. hint: give the URLs that it is for"),
        ({"ADMISSION": {"path": ["/a/"]}}, r"hint: give the URLs that it is for, {'paths': \['/totals/'\]}"),
        ({"ADMISSION": {"paths": "/a/"}}, r"hint: give a list of what URLs begin with"),
        ({"ADMISSION": {"paths": ["a/"]}}, r"hint: give a list of what URLs begin with"),
        ({"ADMISSION": {"paths": ["/"], "inflight": 4}}, r"\['inflight'\] is unknown. hint: did you mean 'in_flight'"),
        ({"ADMISSION": {"paths": ["/"], "in_flight": 0}}, r"hint: give in_flight as a number over 0"),
        ({"ADMISSION": {"paths": ["/"], "wait": -1}}, r"hint: give wait in seconds"),
        ({"ERROR_RESPONSE": 5}, r"MOLT\['ERROR_RESPONSE'\] is 5"),
        ("/molt0", r"MOLT is a str. hint: make it a dict"),
    ],
)
def test_a_wrong_key_or_value_is_named(given: Any, message: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=message):
        settings.check(given)


@pytest.mark.parametrize("module", [clients, metrics])
def test_a_lock_that_a_thread_held_while_the_process_forked_is_free_in_the_child(module: Any) -> None:
    def check() -> None:
        assert module._lock.acquire(timeout=5)
        module._lock.release()
        with override_settings(MOLT={"SHM": "/molt-tests-fork"}):
            assert client().shm == "/molt-tests-fork"

    with module._lock:
        assert in_child(check) == 0


def test_overridden_settings_are_honoured_and_so_is_their_end() -> None:
    before = client()
    assert before is client() and before.shm == "/molt-tests-nobody"
    with override_settings(MOLT={"SHM": "/molt-tests-other", "TIMEOUT": 0.5, "ATTACH_WAIT": 0.1}):
        inside = client()
        assert (inside.shm, inside.timeout, inside.wait) == ("/molt-tests-other", 0.5, 0.1)
    with override_settings(MOLT={"SOCKET": "/tmp/molt-tests-nobody.sock"}):
        assert (client().shm, client().socket) == (None, "/tmp/molt-tests-nobody.sock")
    assert client() is before
