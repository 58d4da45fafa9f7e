"""The table endpoints give the same summary, and the offloaded one copies nothing."""

import json
import re
from pathlib import Path

import molt_accel
import pyarrow as pa
import pytest
from django.test import Client

from orders import table_data, table_summary

ARROW = "application/vnd.apache.arrow.stream"


@pytest.mark.parametrize("rows", [1, 100, 10_000, 100_000])
def test_equal_summaries(worker: molt_accel.SpawnedClient, http: Client, rows: int) -> None:
    body = table_data.body(rows, seed=rows)
    baseline = http.post("/baseline/table/", body, content_type=ARROW)
    offload = http.post("/offload/table/", body, content_type=ARROW)
    assert baseline.status_code == offload.status_code == 200
    assert json.loads(offload.content) == json.loads(baseline.content)


def test_no_rows(worker: molt_accel.SpawnedClient, http: Client) -> None:
    body = table_data.stream(table_data.table(0))
    for address in ("/baseline/table/", "/offload/table/"):
        response = http.post(address, body, content_type=ARROW)
        assert (response.status_code, json.loads(response.content)) == (200, [])


def test_batches_make_no_difference(worker: molt_accel.SpawnedClient, http: Client) -> None:
    table = table_data.table(1_000, seed=5)
    pieces = pa.Table.from_batches(table.to_batches(max_chunksize=7))
    answers = [http.post("/offload/table/", table_data.stream(each), content_type=ARROW) for each in (table, pieces)]
    assert json.loads(answers[0].content) == json.loads(answers[1].content)


def test_lines_that_lack_a_value_are_left_out(worker: molt_accel.SpawnedClient, http: Client) -> None:
    table = table_data.table(600, seed=6)
    holes = [
        pa.array([None if row % 6 == column else value for row, value in enumerate(values.to_pylist())], values.type)
        for column, values in enumerate(table.columns)
    ]
    body = table_data.stream(pa.table(holes, names=table.column_names))
    baseline, offload = (http.post(path, body, content_type=ARROW) for path in ("/baseline/table/", "/offload/table/"))
    assert (baseline.status_code, offload.status_code) == (200, 200)
    assert json.loads(offload.content) == json.loads(baseline.content)
    assert sum(row["lines"] for row in json.loads(baseline.content)) < 100


@pytest.mark.parametrize("address", ["/baseline/table/", "/offload/table/"])
def test_the_reduced_table_as_arrow(worker: molt_accel.SpawnedClient, http: Client, address: str) -> None:
    body = table_data.body(10_000, seed=9)
    response = http.post(address, body, content_type=ARROW, headers={"Accept": ARROW})
    assert response.status_code == 200
    assert response["Content-Type"] == ARROW
    assert pa.ipc.open_stream(response.content).read_all().to_pylist() == table_summary.summarize(body)


@pytest.mark.parametrize("rows", [100, 10_000])
def test_a_posted_table_is_not_copied(worker: molt_accel.SpawnedClient, http: Client, rows: int) -> None:
    response = http.post("/offload/table/", table_data.body(rows), content_type=ARROW)
    assert response.status_code == 200
    assert response.molt.copied_bytes == 0


def test_a_placed_table_is_read_where_it_lies(worker: molt_accel.SpawnedClient) -> None:
    with (
        molt_accel.attach(shm=worker.shm) as client,
        client.call("table_summary", table_data.table(10_000), codec="arrow") as answer,
    ):
        assert answer.metrics.copied_bytes == 0
        first, mapped_from, mapped_to = answer.address
        assert mapped_from <= first < mapped_to
        assert any(
            int(begin, 16) <= first < int(end, 16)
            for begin, end in re.findall(rf"^(\w+)-(\w+) .*/dev/shm{worker.shm}\b", maps(), re.MULTILINE)
        ), "the answer's bytes lie in this process's mapping of the worker's segment"
        arrow = answer.to_pyarrow()
        assert arrow.column("pieces").chunk(0).buffers()[1].address in range(mapped_from, mapped_to)
        assert arrow.to_pylist() == table_summary.summarize(table_data.body(10_000))


def maps() -> str:
    """The memory map of this process."""
    return Path("/proc/self/maps").read_text()
