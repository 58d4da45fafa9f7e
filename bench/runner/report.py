"""What a run leaves: summary.json (a fixed shape), details.json (every round), summary.md, report.html, `latest`."""

import dataclasses
import json
import os
import time
from pathlib import Path

from . import markdown, page
from .charts import some
from .errors import BenchError
from .figures import Figures, curve, figures, ratios, servers, steadiness
from .plans import Settings
from .results import PARTS, Results, restored
from .tables import Table

PAGE = "report.html"


def new_folder(results: Path) -> Path:
    """A folder under `results` for a run that begins now."""
    folder = results / time.strftime("%Y-%m-%dT%H-%M-%S")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def scenario(one: Figures) -> dict:
    """One entry of `scenarios` in summary.json. Times in ms, CPU in seconds per round, memory in MB (10^6 bytes)."""
    return {
        "name": one.scenario.name,
        "pair": one.scenario.pair,
        "lines": one.scenario.lines,
        "server": one.server,
        "concurrency": one.users,
        "rps": round(one.rps, 2),
        "p50_ms": round(one.latency["p(50)"], 3),
        "p95_ms": round(one.latency["p(95)"], 3),
        "p99_ms": round(one.latency["p(99)"], 3),
        "p999_ms": round(one.latency["p(99.9)"], 3),
        "errors": one.errors,
        "django_cpu_s": round(one.django_cpu_s, 2),
        "worker_cpu_s": round(one.worker_cpu_s, 2),
        "django_rss_mb": round(one.django_rss_mb, 1),
        "worker_rss_mb": round(one.worker_rss_mb, 1),
    }


def summary(machine: dict, every: list[Figures]) -> dict:
    """summary.json: the closed-loop scenarios, and the ratios of the frozen workloads."""
    return {
        "machine": machine,
        "scenarios": [scenario(one) for one in every if one.kind != "arrival"],
        "ratios": ratios(every),
    }


def details(settings: Settings, results: Results, every: list[Figures]) -> dict:
    """details.json: all that summary.json has no place for."""
    names = dict.fromkeys(one.scenario.name for one in every)
    return {
        "how": how(settings),
        "settings": dataclasses.asdict(settings),
        "compared_answers": results.compared,
        "left_behind": results.left_behind,
        "failed": results.failed,
        "medians": [
            {**dataclasses.asdict(one), "requests_per_cpu_s": one.per_cpu_second, "django_ms": one.django_ms}
            for one in every
        ],
        "curve": [{**dataclasses.asdict(point), "ratio": point.ratio} for point in curve(every)],
        "steadiness": {
            server: {
                name: dataclasses.asdict(found)
                for name in names
                if (found := steadiness(results, name, server)) is not None
            }
            for server in servers(every)
        },
        "rounds": [dataclasses.asdict(one) for one in results.rounds],
        **{name: getattr(results, name) for name in PARTS},
        "web_process_mb": results.web_process_mb,
    }


def how(settings: Settings) -> str:
    """One sentence on how the figures were taken."""
    return (
        f"{settings.users} requests in flight, {some(settings.rounds, 'round')} of {settings.seconds:g} s each, the endpoints "
        "in turn; every figure is the median of its rounds, errors are added up. Everything ran on this one machine, "
        "the load generator included: ratios travel to other machines, absolute figures do not."
    )


def write(folder: Path, machine: dict, settings: Settings, results: Results) -> dict:
    """Writes all four files, points `latest` at their folder and gives the summary."""
    every = figures(results)
    told = summary(machine, every)
    _json(folder / "summary.json", told)
    _json(folder / "details.json", details(settings, results, every))
    draw(folder)
    point_latest(folder)
    return told


def draw(folder: Path) -> Path:
    """Draws summary.md and the page out of the JSON that lies in the folder; gives the page."""
    try:
        machine = json.loads((folder / "summary.json").read_text())["machine"]
        told = json.loads((folder / "details.json").read_text())
    except FileNotFoundError as reason:
        raise BenchError(f"{folder} holds no run: there is no {reason.filename}", "`make bench` makes one") from reason
    results = restored(told)
    every = figures(results)
    (folder / "summary.md").write_text(markdown.render(machine, told["how"], results, every))
    (folder / PAGE).write_text(page.render(machine, told["how"], results, every))
    return folder / PAGE


def part(folder: Path, machine: dict, name: str, found: dict, shown: list[Table]) -> None:
    """Writes what one command alone has measured: NAME.json and NAME.md."""
    _json(folder / f"{name}.json", {"machine": machine, **found})
    (folder / f"{name}.md").write_text("\n\n".join(markdown.table(one) for one in shown) + "\n")


def point_latest(folder: Path) -> None:
    """Makes `latest` beside the folder mean this folder, without an instant at which it means nothing."""
    fresh = folder.parent / f".latest-{os.getpid()}"
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(folder.name)
    fresh.replace(folder.parent / "latest")


def _json(path: Path, content: dict) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n")
