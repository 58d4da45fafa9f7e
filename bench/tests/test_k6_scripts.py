"""The k6 scripts: each is valid, takes its settings from the environment, and sends what the endpoints take."""

import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from datetime import date, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from bench.runner import data, k6
from bench.runner.owned import Owned
from bench.runner.paths import DJANGO, SCRIPTS
from bench.runner.scenarios import ORDERS, REPORTS, TABLES

NAMES = sorted(path.stem for path in SCRIPTS.glob("*.js"))


@pytest.fixture(scope="module", autouse=True)
def bodies() -> None:
    """The table scripts open a file at their start."""
    for scenario in (*ORDERS, *TABLES):
        data.body(scenario)


def inspect(name: str, **env: str) -> dict:
    """The options of a script, as k6 itself reads them."""
    command = [k6.program(), "inspect", "--include-system-env-vars", str(SCRIPTS / f"{name}.js")]
    shown = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **env})
    assert shown.returncode == 0, shown.stderr
    return json.loads(shown.stdout)


def test_every_endpoint_has_its_script() -> None:
    assert set(NAMES) == {scenario.name for scenario in (*ORDERS, *TABLES, *REPORTS)}


@pytest.mark.parametrize("name", NAMES)
def test_defaults_need_no_environment(name: str) -> None:
    options = inspect(name)
    assert options["scenarios"]["load"]["executor"] == "constant-vus"
    assert options["scenarios"]["load"]["vus"] == 16
    assert options["thresholds"]["http_req_failed"] == ["rate==0"]
    assert options["thresholds"]["http_req_duration"]


def test_a_rate_makes_it_an_open_loop() -> None:
    load = inspect("offload", MOLT_RATE="120.5", MOLT_SECONDS="7")["scenarios"]["load"]
    assert (load["executor"], load["rate"], load["timeUnit"], load["duration"]) == (
        "constant-arrival-rate",
        7230,
        "1m0s",
        "7s",
    )


def test_a_setting_that_is_no_number_is_refused() -> None:
    command = [k6.program(), "inspect", "-e", "MOLT_USERS=many", str(SCRIPTS / "baseline.js")]
    shown = subprocess.run(command, capture_output=True, text=True)
    assert shown.returncode != 0 and "MOLT_USERS=many" in shown.stderr


class Endpoint(BaseHTTPRequestHandler):
    """Answers 200 and keeps what came; the second of ten requests gets 503."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # one write per answer: two small ones would wait for the client's delayed acknowledgement
    seen: list[tuple[str, str, str, bytes]]

    def do_GET(self) -> None:
        self.do_POST()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        self.seen.append((self.path, self.headers["Authorization"], self.headers["Content-Type"], body))
        self.send_response(503 if len(self.seen) % 10 == 2 else 200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def endpoint():
    """A local HTTP server that takes anything."""
    Endpoint.seen = []
    with ThreadingHTTPServer(("127.0.0.1", 0), Endpoint) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("scenario", [*ORDERS, *TABLES], ids=lambda scenario: scenario.name)
def test_a_run_sends_the_body_and_counts_failures(scenario, endpoint: str, tmp_path: Path) -> None:
    body = data.body(scenario)
    load = k6.Load(scenario.name, endpoint, body, "the-token", 1, 2)
    with Owned() as owned:
        found = k6.run(owned, load, tmp_path / "k6.log", tmp_path / "k6.json")
    assert found.requests == len(Endpoint.seen) > 0
    assert found.errors == sum(1 for number in range(1, found.requests + 1) if number % 10 == 2)
    assert found.generator_cpu_s > 0
    assert found.latency["p(50)"] <= found.latency["p(99.9)"] <= found.latency["max"]
    kind = "application/vnd.apache.arrow.stream" if scenario.table else "application/json"
    expected = (scenario.path, "Bearer the-token", kind, body.read_bytes())
    assert set(Endpoint.seen) == {expected}


def test_an_arrival_rate_counts_from_when_a_request_was_due(tmp_path: Path) -> None:
    """One answer at a time, each takes longer than the next request is away: who comes later waits for all before."""

    class Slow(Endpoint):
        def do_POST(self) -> None:
            time.sleep(0.05)
            super().do_POST()

    Slow.seen = [("", "", "", b"")] * 2  # the third, the twelfth, ... is no failure here
    with HTTPServer(("127.0.0.1", 0), Slow) as server:
        Slow.protocol_version = "HTTP/1.0"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        load = k6.Load("offload", url, data.body(ORDERS[1]), "the-token", 1, 1, 40.0)
        with Owned() as owned:
            found = k6.run(owned, load, tmp_path / "k6.log", tmp_path / "k6.json")
            sent, _ = k6.raw(owned, load, tmp_path / "k6.log", tmp_path / "k6.json")
        server.shutdown()
    # Eight users wait at most, each for the other seven; those that came when all waited count from when they were due.
    assert found.latency["max"] > 500 > 8 * 55
    assert sent["metrics"]["since_due_ms"]["values"]["max"] > sent["metrics"]["http_req_duration"]["values"]["max"] + 50


@pytest.mark.parametrize("scenario", REPORTS, ids=lambda scenario: scenario.name)
def test_a_report_is_asked_for_with_changing_parameters(scenario, endpoint: str, tmp_path: Path) -> None:
    with Owned() as owned:
        found = k6.run(
            owned, k6.Load(scenario.name, endpoint, None, "the-token", 1, 2), tmp_path / "k6.log", tmp_path / "k6.json"
        )
    assert found.requests == len(Endpoint.seen) > 0
    asked = [urlsplit(seen[0]) for seen in Endpoint.seen]
    assert {one.path for one in asked} == {scenario.path}
    queries = [parse_qs(one.query) for one in asked]
    assert all(set(query) == {"region", "from", "to"} for query in queries)
    assert len({query["region"][0] for query in queries}) == min(8, found.requests)
    assert len({query["from"][0] for query in queries}) == min(24, found.requests)
    assert all(
        date.fromisoformat(query["to"][0]) - date.fromisoformat(query["from"][0]) == timedelta(27) for query in queries
    )
    assert {seen[1] for seen in Endpoint.seen} == {"Bearer the-token"}


def test_the_generated_body_is_a_request_like_the_apps_own(endpoint: str) -> None:
    command = [
        k6.program(),
        "run",
        "--quiet",
        "-e",
        f"MOLT_URL={endpoint}",
        "-e",
        "MOLT_SECONDS=1",
        "-e",
        "MOLT_USERS=1",
    ]
    env = {name: value for name, value in os.environ.items() if not name.startswith("MOLT_")}
    subprocess.run([*command, str(SCRIPTS / "baseline.js")], capture_output=True, env=env)
    (body,) = {seen[3] for seen in Endpoint.seen}  # seeded: every request is the same
    mine, theirs = json.loads(body), json.loads(data.orders())
    assert len(mine["orders"]) == len(theirs["orders"]) == 2000
    assert len(body) == pytest.approx(len(data.orders()), rel=0.02)
    for field in ("region", "category", "discount", "qty"):
        assert {line[field] for line in mine["orders"]} == {line[field] for line in theirs["orders"]}, field
    assert len(Counter(line["customer"] for line in mine["orders"])) > 450
    summarize = "import sys; from orders.baseline import summarize; print(summarize(sys.stdin.buffer.read())['totals'])"
    told = subprocess.run([sys.executable, "-c", summarize], cwd=DJANGO, input=body, capture_output=True)
    assert told.returncode == 0 and b"2000" in told.stdout, told.stderr
