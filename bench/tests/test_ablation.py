"""The entries without shared memory: both ways answer alike at every size, and a fault is a fault."""

import socket
from pathlib import Path

import pytest

from bench.runner import ablation, child
from bench.runner.errors import BenchError
from bench.runner.owned import Owned
from bench.runner.paths import binary


def test_both_ways_answer_alike_at_every_size(tmp_path: Path) -> None:
    with Owned() as owned:
        found = ablation.measure(owned, tmp_path, ablation.CHECK)
    assert found["left_behind"] == []
    measured = {(row["entry"], row["lines"] or row["bytes"], row["way"]) for row in found["rows"]}
    ways = (ablation.MOLT, ablation.SOCKET)
    assert measured == {
        *(("echo", size, way) for size in ablation.SIZES for way in ways),
        *(("order_summary", lines, way) for lines in ablation.LINES for way in ways),
    }
    assert all(
        0 < row["p50_from_us"] <= row["p50_us"] <= row["p50_to_us"] and row["cpu_us"] > 0 for row in found["rows"]
    )
    assert len(ablation.table(found).rows) == len(ablation.SIZES) + len(ablation.LINES)


def test_another_answer_is_seen() -> None:
    asks = {ablation.MOLT: (lambda payload: payload, 1), ablation.SOCKET: (lambda payload: payload[::-1], 1)}
    with pytest.raises(BenchError, match="answer differently"):
        ablation.compared("echo", None, b"ab", asks, ablation.CHECK)


def test_a_fault_is_told_and_the_next_request_is_answered(tmp_path: Path) -> None:
    place = tmp_path / "s"
    with Owned() as owned:
        served = child.start(owned, "molt-ablation", [binary("molt-ablation"), place], tmp_path / "log")
        child.until(place.is_socket, "that it listens", 30, served)
        with socket.socket(socket.AF_UNIX) as broken:
            broken.connect(str(place))
            broken.sendall(b"\xff" * 8)
            assert broken.recv(1) == b""  # a frame that long is refused
        with ablation.connected(place) as ask:
            with pytest.raises(BenchError, match="the body is not valid JSON"):
                ask("order_summary", b"{")
            with pytest.raises(BenchError, match="there is no entry nobody"):
                ask("nobody", b"")
            assert ask("echo", b"") == b""
            assert ask("echo", b"x" * 300_000) == b"x" * 300_000
