"""A Python process pool (`concurrent.futures.ProcessPoolExecutor`) that each web process keeps: the tuned Python runs there."""

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from functools import cache

from . import python_work


@cache
def pool() -> ProcessPoolExecutor:
    """Started by the first request, kept with the web process; spawned, because a threaded process must not be forked."""
    return ProcessPoolExecutor(int(os.environ["MOLT_BENCH_POOL"]), multiprocessing.get_context("spawn"))


def answer(body: bytes) -> bytes:
    """The body goes there and the finished JSON comes back, each once through a pipe."""
    return pool().submit(python_work.summary, body).result()
