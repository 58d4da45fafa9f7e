"""What a run leaves: summary.json (a fixed shape), details.json (every round), summary.md, summary.html, `latest`."""

import dataclasses
import json
import os
import time
from pathlib import Path

from . import machine, markdown, page
from .figures import Figures, curve, figures, ratios, servers, steadiness
from .measure import Results
from .scenarios import Settings
from .tables import Table


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
        "settings": dataclasses.asdict(settings),
        "compared_answers": results.compared,
        "left_behind": results.left_behind,
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
        "micro": results.micro,
        "transport": results.transport,
        "memory": results.memory,
        "questions": results.questions,
        "web_process_mb": results.web_process_mb,
    }


def write(folder: Path, machine: dict, settings: Settings, results: Results) -> dict:
    """Writes all four files, points `latest` at their folder and gives the summary."""
    every = figures(results)
    told = summary(machine, every)
    _json(folder / "summary.json", told)
    _json(folder / "details.json", details(settings, results, every))
    (folder / "summary.md").write_text(markdown.render(machine, settings, results, every))
    (folder / "summary.html").write_text(page.render(machine, settings, results, every))
    point_latest(folder)
    return told


def part(folder: Path, name: str, found: dict, shown: list[Table]) -> None:
    """Writes what one command alone has measured: NAME.json and NAME.md."""
    _json(folder / f"{name}.json", {"machine": machine.describe(), **found})
    (folder / f"{name}.md").write_text("\n\n".join(markdown.table(one) for one in shown) + "\n")


def point_latest(folder: Path) -> None:
    """Makes `latest` beside the folder mean this folder, without an instant at which it means nothing."""
    fresh = folder.parent / f".latest-{os.getpid()}"
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(folder.name)
    fresh.replace(folder.parent / "latest")


def _json(path: Path, content: dict) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n")
