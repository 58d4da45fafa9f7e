"""The project's tests: each class has a worker of its own, as docs/django.md shows."""

from __future__ import annotations

import os
from pathlib import Path

from django.conf import settings
from django.test import SimpleTestCase, TestCase, override_settings

from molt_accel import testing
from molt_accel.django import client


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


class Unnamed(SimpleTestCase):
    """A project that leaves the default name: its tests never reach the worker that a developer has running."""

    def test_it(self) -> None:
        with override_settings(MOLT={}):
            self.assertEqual(client().shm, f"/molt-test-{os.getpid()}")
            self.assertEqual(self.client.post("/compute/", {"values": [1]}).status_code, 503)
        with override_settings(MOLT={"SHM": "/molt0"}):
            self.assertEqual(client().shm, "/molt0", "who names it means it")
        with override_settings(MOLT={"SOCKET": "/tmp/molt-tests-nobody.sock"}):
            self.assertIsNone(client().shm)


class Faked(SimpleTestCase):
    def test_it(self) -> None:
        with testing.fake({"compute": lambda payload, params: {"sum": -1}}):
            answer = self.client.post("/compute/", {"values": [1]}, content_type="application/json")
        self.assertEqual(answer.json()["sum"], -1)
