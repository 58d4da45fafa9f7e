"""The progress line: what the run does now, how far it is, and how long it has left."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn


def clock(seconds: float) -> str:
    """`2:05`"""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02}"


class _Line(Progress):
    """rich's progress display, driven by the clock: steps report only their beginning and end."""

    def __init__(self, run: "RunProgress", console: Console) -> None:
        self._run = run
        columns = (TextColumn("{task.description}"), BarColumn(None), TextColumn("{task.fields[left]} left"))
        super().__init__(*columns, console=console, transient=True, expand=True, refresh_per_second=4)
        self.add_task("starting", total=run.total, left=clock(run.total))

    def get_renderables(self) -> Any:
        run = self._run
        for task in self.tasks:  # the one line, or none while rich sets itself up
            self.update(task.id, completed=run.total - run.left(), description=run.doing, left=clock(run.left()))
        return super().get_renderables()


class RunProgress:
    """Progress along a plan whose steps have known lengths: loads last as long as they are told to.

    On a terminal one line that moves; elsewhere (CI, a pipe) a line at the beginning of each step, and whenever one says
    what it does.
    """

    def __init__(self, total_seconds: float, console: Console) -> None:
        self.total = total_seconds
        self.doing = self._what = "starting"
        self._done = 0.0
        self._step = 0.0
        self._began = time.monotonic()
        self._console = console

    def left(self) -> float:
        """Seconds until the plan is done, as far as is known now; it stands still while a step is late."""
        within = min(time.monotonic() - self._began, self._step)
        return max(self.total - self._done - within, 0)

    @contextmanager
    def shown(self) -> Iterator["RunProgress"]:
        """Shows the line while the run goes on."""
        if not self._console.is_terminal:
            yield self
            return
        with _Line(self, self._console):
            yield self

    @contextmanager
    def step(self, doing: str, seconds: float) -> Iterator[None]:
        """One step of the plan, expected to take so many seconds."""
        self._what, self._step, self._began = doing, seconds, time.monotonic()
        self._does(doing)
        try:
            yield
        finally:
            self._done += seconds
            self._step = 0.0

    def say(self, text: str) -> None:
        """What the step does now."""
        self._does(f"{self._what}: {text}")

    def _does(self, doing: str) -> None:
        self.doing = doing
        if not self._console.is_terminal:
            self._console.print(f"[{clock(self.left())} left] {doing}", highlight=False, markup=False, soft_wrap=True)
