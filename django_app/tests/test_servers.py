"""The demo under real web servers, while its worker dies and comes back."""

import http.client
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import httpx
import pytest
from django.conf import settings

from orders import generate, table_data
from tests.processes import RUNSERVER, SERVERS, TOKEN, Server, Worker
from tests.waiting import until

BODY = generate.body(2_000, 1)
JSON = {"Content-Type": "application/json"}
ARROW = {"Content-Type": "application/vnd.apache.arrow.stream"}


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest, own_worker: Worker, tmp_path: Path) -> Iterator[Server]:
    """The demo under each web server in turn."""
    with Server(SERVERS[request.param], tmp_path, own_worker.shm) as running:
        yield running


class Load:
    """Threads that post orders until the end of the `with`, counting the answers by status."""

    def __init__(self, server: Server, addresses: list[str], body: bytes = BODY, threads: int = 8) -> None:
        self.server = server
        self.body = body
        self.statuses: Counter[int | str] = Counter()
        self._end = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(addresses[number % len(addresses)],)) for number in range(threads)
        ]

    def _run(self, address: str) -> None:
        with httpx.Client(base_url=self.server.url, headers=TOKEN | JSON, timeout=30) as client:
            while not self._end.is_set():
                try:
                    status = client.post(address, content=self.body).status_code
                except httpx.HTTPError as reason:
                    status = repr(reason)
                self.statuses[status] += 1

    def wait_for(self, status: set[int], count: int) -> None:
        """Waits until `count` more answers have one of these statuses."""
        start = self._seen(status)
        try:
            until(lambda: self._seen(status) >= start + count, f"{count} answers of {status}", 30)
        except AssertionError as reason:
            raise AssertionError(f"{reason}; all answers: {self.statuses}\n{self.server.held.said()}") from None

    def _seen(self, status: set[int]) -> int:
        return sum(self.statuses[each] for each in status)

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *reason: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join(60)


def test_every_endpoint_answers(server: Server) -> None:
    check_every_endpoint(server)


def test_the_stage_scripts_server(own_worker: Worker, tmp_path: Path) -> None:
    with Server(RUNSERVER, tmp_path, own_worker.shm) as running:
        check_every_endpoint(running)


def check_every_endpoint(server: Server) -> None:
    """Each endpoint answers, and those of a kind answer the same."""
    answers = [server.client.post(path, content=BODY, headers=JSON) for path in ("/baseline/", "/tuned/", "/offload/")]
    assert [answer.status_code for answer in answers] == [200] * 3
    assert answers[0].json() == answers[1].json() == answers[2].json()
    assert server.client.post("/aoffload/", content=BODY, headers=JSON).json() == answers[0].json()
    table = table_data.body(10_000, 1)
    tables = [
        server.client.post(path, content=table, headers=ARROW) for path in ("/baseline/table/", "/offload/table/")
    ]
    assert [answer.status_code for answer in tables] == [200] * 2
    assert tables[0].json() == tables[1].json()


@pytest.mark.parametrize("lines", [2_400, 80_000])
def test_large_bodies(server: Server, lines: int) -> None:
    body = generate.body(lines, 1)
    answers = [server.client.post(path, content=body, headers=JSON) for path in ("/tuned/", "/offload/", "/aoffload/")]
    assert [answer.status_code for answer in answers] == [200] * 3
    assert answers[0].json() == answers[1].json() == answers[2].json()


def test_the_worker_is_killed_under_load_and_started_again(server: Server, own_worker: Worker) -> None:
    with Load(server, ["/offload/", "/aoffload/"]) as load:
        load.wait_for({200}, 50)
        own_worker.held.kill()
        load.wait_for({502, 503}, 50)
        assert server.client.get("/health/").status_code == 503
        own_worker.start()
        until(lambda: server.client.get("/health/").status_code == 200, "Django finds the new worker")
        load.wait_for({200}, 50)
    assert load.statuses.keys() <= {200, 502, 503}, load.statuses
    assert server.held.running
    assert "Traceback" not in server.held.said()


def test_a_request_that_was_running_gets_502(server: Server, own_worker: Worker) -> None:
    kills = 0
    with Load(server, ["/offload/", "/aoffload/"], generate.body(40_000, 1)) as load:
        # Most of the worker's time goes into these bodies, so nearly every kill finds one running.
        while not load.statuses[502]:
            assert kills < 20, load.statuses
            load.wait_for({200}, 5)
            own_worker.held.kill()
            load.wait_for({502, 503}, 5)
            own_worker.start()
            kills += 1
    assert load.statuses.keys() <= {200, 502, 503}, load.statuses


@pytest.mark.parametrize("polite", [True, False], ids=["stopped", "killed"])
@pytest.mark.parametrize("command", SERVERS.values(), ids=SERVERS)
def test_nothing_is_left_of_django(own_worker: Worker, tmp_path: Path, command: list[str], polite: bool) -> None:
    until(lambda: not own_worker.stat()["sessions"], "the worker is idle before the first client")
    resident = own_worker.stat()["arena"]["used_bytes"]  # the manifest's tables
    with (
        Server(command, tmp_path, own_worker.shm) as server,
        Load(server, ["/offload/", "/aoffload/"]) as load,
    ):
        load.wait_for({200}, 20)
        assert own_worker.stat()["sessions"]
        if not polite:
            server.held.kill()
    until(lambda: not own_worker.stat()["sessions"], "no session is left")
    until(lambda: own_worker.stat()["arena"]["used_bytes"] == resident, "no arena byte of the dead clients is left")


def test_a_body_over_the_limit_is_refused_before_it_is_sent(own_worker: Worker, tmp_path: Path) -> None:
    with Server(SERVERS["gunicorn"], tmp_path, own_worker.shm) as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
        connection.putrequest("POST", "/offload/")
        for name, value in (TOKEN | JSON | {"Content-Length": str(settings.BODY_LIMIT + 1)}).items():
            connection.putheader(name, value)
        connection.endheaders(b'{"orders":')
        assert connection.getresponse().status == 413
        connection.close()
