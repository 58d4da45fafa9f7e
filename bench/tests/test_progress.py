"""The progress line: what it says, and that it moves with the plan."""

import io

import pytest
from rich.console import Console

from bench import __main__ as main
from bench.runner import measure, parts, progress
from bench.runner.plans import DEMO, QUICK, RUN
from bench.runner.progress import RunProgress
from bench.runner.queries import SCALES
from bench.runner.results import PARTS


def test_elsewhere_than_on_a_terminal_each_step_is_a_line() -> None:
    out = io.StringIO()
    run = RunProgress(90, Console(file=out))
    with run.shown(), run.step("warming up", 30):
        pass
    with run.step("loading [everything]", 60):
        pass
    assert out.getvalue().splitlines() == ["[1:30 left] warming up", "[1:00 left] loading [everything]"]
    assert run.left() == 0


def test_a_long_step_says_what_it_does() -> None:
    out = io.StringIO()
    run = RunProgress(90, Console(file=out))
    with run.shown(), run.step("overload", 90):
        run.say("client: a closed loop")
        run.say("client: [twice] that")
    lines = out.getvalue().splitlines()
    assert lines[1:] == ["[1:30 left] overload: client: a closed loop", "[1:30 left] overload: client: [twice] that"]
    assert run.doing == "overload: client: [twice] that", "the terminal's line shows the same"


def test_time_left_follows_the_clock_and_waits_for_a_late_step(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    run = RunProgress(60, Console(file=io.StringIO()))
    with run.step("one", 20):
        now += 15
        assert run.left() == 45
        now += 15
        assert run.left() == 40
    assert run.left() == 40


def test_on_a_terminal_the_line_shows_the_step_and_the_time() -> None:
    out = io.StringIO()
    run = RunProgress(90, Console(file=out, force_terminal=True, width=100))
    with run.shown(), run.step("gunicorn: /offload/", 30):
        pass
    assert "gunicorn: /offload/" in out.getvalue() and "1:30 left" in out.getvalue()


def test_the_demo_is_planned_for_about_three_minutes() -> None:
    assert 90 < measure.planned_seconds(DEMO) < 240
    assert measure.planned_seconds(RUN) > measure.planned_seconds(DEMO)


def test_the_quick_run_is_planned_to_end_within_five_minutes() -> None:
    assert measure.planned_seconds(QUICK) < 285
    left_out = {"peers", "overload", "tail"}
    assert {part.name for part, _ in measure.planned(QUICK)} == {part.name for part in parts.ALL} - left_out


def test_the_long_run_measures_every_part_of_the_results() -> None:
    assert {part.name for part in parts.ALL} == set(PARTS)
    assert {part.name for part, _ in measure.planned(RUN)} == set(PARTS) - {"ablation"}, "which ends the peers"


def test_the_long_run_has_five_rounds_of_everything() -> None:
    assert min(RUN.rounds, RUN.curve_rounds, RUN.report_rounds, RUN.peers.rounds, RUN.peers.without.rounds) >= 5
    assert SCALES[RUN.questions].rounds >= 5 and RUN.micro.rounds >= 5 and RUN.in_flight.rounds >= 5


def test_parts_are_left_out_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(main, "carry_out", lambda settings, *_, **__: asked.append(settings))
    main.cli(["run", "--without", "in-flight", "--without", "peers"], standalone_mode=False)
    (settings,) = asked
    left_out = {"in_flight", "peers", "ablation"}
    assert {part.name for part, _ in measure.planned(settings)} == {part.name for part in parts.ALL} - left_out
    assert settings.rounds == RUN.rounds
