"""The project's tests: each class has a worker of its own, as docs/django.md shows."""

from __future__ import annotations

import os
from pathlib import Path

from django.conf import settings
from django.test import SimpleTestCase, TestCase

from molt_accel import testing


class WithAWorker(SimpleTestCase):
    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.molt = cls.enterClassContext(testing.worker())

    def ask(self) -> None:
        self.assertEqual(settings.MOLT["SHM"], self.molt.shm)
        for number in range(20):
            answer = self.client.post("/compute/", {"values": [number]}, content_type="application/json")
            self.assertEqual(answer.json()["sum"], number)
        # Nobody else is served by this worker: no other test process, and none of an earlier run.
        self.assertEqual({session["pid"] for session in self.molt.stats()["sessions"]}, {os.getpid()})
        seen = Path(os.environ["SEEN"], f"{type(self).__name__} {os.getppid()}")
        seen.write_text(f"{self.molt.shm} {self.molt.worker.pid}")


class First(WithAWorker):
    def test_it(self) -> None:
        self.ask()


class Second(WithAWorker):
    def test_it(self) -> None:
        self.ask()


class Third(WithAWorker, TestCase):
    def test_it(self) -> None:
        self.ask()


class Fourth(WithAWorker, TestCase):
    def test_it(self) -> None:
        self.ask()


class Faked(SimpleTestCase):
    def test_it(self) -> None:
        with testing.fake({"compute": lambda payload, params: {"sum": -1}}):
            answer = self.client.post("/compute/", {"values": [1]}, content_type="application/json")
        self.assertEqual(answer.json()["sum"], -1)
