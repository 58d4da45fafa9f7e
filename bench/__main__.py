"""The command line, `python -m bench COMMAND`: the runs `demo` and `run`; a part of the long run by itself, `peers`, `load`,
`timeline`, `memory`, `overload`, `ablation`, `micro`, `transport`, `in-flight`, `questions` or `tail`; `page` draws a run's page
again; `gate` counts instructions; `data` writes request bodies."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from .runner import (
    ablation,
    data,
    gate,
    in_flight,
    load,
    machine,
    measure,
    memory,
    micro,
    overload,
    parts,
    peers,
    report,
    tables,
    tail,
    terminal,
    timeline,
    transport,
)
from .runner.errors import BenchError
from .runner.figures import figures
from .runner.owned import Owned, Stopped
from .runner.paths import RESULTS
from .runner.plans import DEMO, QUICK, RUN, Settings
from .runner.progress import RunProgress, clock
from .runner.results import Results
from .runner.scenarios import BASELINE, OFFLOAD_TABLE, at_lines
from .runner.servers import SERVERS

console = Console()
if not console.is_terminal:
    console.width = 120  # rich takes a file for 80 columns wide


@click.group(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
def cli() -> None:
    """Measures molt: Django under gunicorn and granian, loaded by k6, with and without molt_worker.

    Everything it starts listens on the loopback or under names of its own, and ends with it, also on Ctrl-C.
    """


RESULTS_OPTION = click.option(
    "--results", type=click.Path(file_okay=False, path_type=Path), default=RESULTS, help="Where <time>/ and latest go."
)


def knobs(default: Settings):
    """The options that change how much is measured."""

    def add(command):
        known = click.Choice(list(SERVERS))
        both, rounds, seconds = " and ".join(default.servers), default.rounds, f"{default.seconds:g}"
        lines = f"Order lines that the report is about; 0 leaves it out. [default: {default.report_lines:,}]"
        for option in (
            click.option("--server", "servers", multiple=True, type=known, help=f"May be repeated. [default: {both}]"),
            click.option("--users", type=click.IntRange(1), help=f"Requests in flight. [default: {default.users}]"),
            click.option("--rounds", type=click.IntRange(1), help=f"Rounds of each load. [default: {rounds}]"),
            click.option("--seconds", type=click.FloatRange(1), help=f"Length of a load. [default: {seconds}]"),
            RESULTS_OPTION,
            click.option("--report-lines", type=click.IntRange(0), help=lines),
            click.option("--curve/--no-curve", default=True, help="Measure also fewer and more lines."),
        ):
            command = option(command)
        return command

    return add


PART_NAMES = click.Choice([part.name.replace("_", "-") for part in parts.ALL])


def field_of(part: str) -> str:
    """The part's field in the settings, by its name on the command line."""
    return part.replace("-", "_")


def told(settings: Settings, servers, report_lines, curve, **chosen) -> Settings:
    """The settings with what the command line says."""
    said = {name: value for name, value in chosen.items() if value is not None}
    return replace(
        settings,
        servers=tuple(dict.fromkeys(servers)) or settings.servers,
        curve_lines=settings.curve_lines if curve else (),
        report_lines=settings.report_lines if report_lines is None else report_lines,
        **said,
    )


@cli.command()
@knobs(DEMO)
def demo(results, **chosen) -> None:
    """The short run: about four minutes, three tables, a page."""
    carry_out(told(DEMO, **chosen), results, everything=False)


@cli.command()
@knobs(RUN)
@click.option("--quick", is_flag=True, help="Everything in short, within five minutes.")
@click.option("--without", multiple=True, type=PART_NAMES, help="Leaves that part out; may be repeated.")
def run(results, quick, without, **chosen) -> None:
    """The long run: everything that is measured, each target judged, and one page with all charts."""
    settings = told(QUICK if quick else RUN, **chosen)
    carry_out(replace(settings, **dict.fromkeys(map(field_of, without))), results, everything=True)


def scales(command):
    """The options of how much a part measures."""
    command = click.option("--check", "scale", flag_value="check", help="Every path once; the figures mean nothing.")(
        command
    )
    return click.option("--quick", "scale", flag_value="quick", help="Fewer and shorter rounds.")(command)


def of_scale(module: Any, scale: str | None) -> Any:
    """The plan of a part's module."""
    return {"quick": module.QUICK, "check": module.CHECK}[scale] if scale else module.Plan()


def alone(name: str, plan: Any, results: Path) -> None:
    """Measures one part by itself: shows its tables, writes NAME.json and NAME.md."""
    part = parts.named(name)
    described = machine.describe()
    folder = report.new_folder(results)
    planned = part.planned_seconds(plan)
    progress = RunProgress(planned, console)
    with Owned() as owned, progress.shown(), progress.step(part.doing, planned):
        found = part.measure(owned, folder / "logs", plan, progress.say)
    shown = part.tables(found)
    if judged := part.verdicts(found):
        shown = [*shown, tables.judged(judged)]
    report.part(folder, described, name, found, shown)
    for table in shown:
        terminal.show(console, table)
    console.print(f"Written to {folder}", highlight=False, soft_wrap=True)
    if found.get("left_behind"):
        raise BenchError(f"a worker left behind {', '.join(found['left_behind'])}")


@cli.command("micro")
@RESULTS_OPTION
@scales
def micro_command(results, scale) -> None:
    """Single calls from Python, and the worker's start, memory and size: S2, S3, S10, S12, S13, S14."""
    alone("micro", of_scale(micro, scale), results)


@cli.command("transport")
@RESULTS_OPTION
@scales
def transport_command(results, scale) -> None:
    """The transport beside iceoryx2, a Unix socket and the bare cache line, in Rust: S1, S4, sizes, clients, spinning."""
    alone("transport", of_scale(transport, scale), results)


@cli.command("questions")
@RESULTS_OPTION
@scales
def questions_command(results, scale) -> None:
    """Questions over tables by molt, DuckDB, Polars, pandas and datafusion-python on the same Arrow data: S5, S6, S7."""
    alone("questions", f"--{scale}" if scale else "", results)


@cli.command("memory")
@RESULTS_OPTION
@scales
@click.option("--mib", type=click.IntRange(1), help=f"Size of the table. [default: {memory.Plan.mib:,}]")
@click.option("--processes", type=click.IntRange(1), help=f"How many read it. [default: {memory.Plan.processes}]")
def memory_command(results, scale, mib, processes) -> None:
    """What a table costs that many Django processes read: one resident table, and a copy in each."""
    plan = of_scale(memory, scale)
    alone("memory", replace(plan, mib=mib or plan.mib, processes=processes or plan.processes), results)


@cli.command("overload")
@RESULTS_OPTION
@click.option(
    "--seconds", type=click.FloatRange(0.5), help=f"Length of each rate. [default: {overload.Plan.seconds:g}]"
)
@click.option("--deadline", type=click.FloatRange(0.01), help=f"Seconds. [default: {overload.Plan.deadline:g}]")
@click.option(
    "--queue", type=click.IntRange(1), help="Requests that may wait in the worker. [default: the worker's own]"
)
@click.option("--check", is_flag=True, help="Every path once; the figures mean nothing.")
def overload_command(results, seconds, deadline, queue, check) -> None:
    """Half to twice the capacity in an open loop, at the client library and under Django: S11."""
    plan = overload.CHECK if check else overload.Plan()
    plan = replace(plan, seconds=seconds or plan.seconds, deadline=deadline or plan.deadline, queue=queue)
    alone("overload", plan, results)


@cli.command("peers")
@RESULTS_OPTION
@scales
@click.option("--peer", "names", multiple=True, help="Only this one; may be repeated.")
def peers_command(results, scale, names) -> None:
    """molt beside Go, process pools, dirty workers, Polars, DuckDB, Flight and others, all behind HTTP: S8, S9."""
    alone("peers", replace(of_scale(peers, scale), names=names), results)


@cli.command("ablation")
@RESULTS_OPTION
@scales
def ablation_command(results, scale) -> None:
    """The same entries behind a plain Unix socket: what shared memory itself buys, 64 bytes to 16 MiB (half a minute)."""
    alone("ablation", of_scale(ablation, scale), results)


@cli.command("timeline")
@RESULTS_OPTION
@click.option("--seconds", type=click.FloatRange(3), help=f"Length of each load. [default: {timeline.Plan.seconds:g}]")
@click.option("--check", is_flag=True, help="Every path once; the figures mean nothing.")
def timeline_command(results, seconds, check) -> None:
    """A kill -9 and an upgrade of the worker under a constant arrival rate: every request, and how many failed."""
    plan = timeline.CHECK if check else timeline.Plan()
    alone("timeline", replace(plan, seconds=seconds or plan.seconds), results)


@cli.command("page")
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
def page_command(folder) -> None:
    """Draws report.html and summary.md again out of the JSON of a run that FOLDER holds."""
    console.print(f"Charts: {report.draw(folder)}", highlight=False, soft_wrap=True)


@cli.command("load")
@RESULTS_OPTION
@scales
@click.option("--peer", "names", multiple=True, help="Only this one; may be repeated.")
def load_command(results, scale, names) -> None:
    """Latency against offered load, all sides at the same arrival rates, and throughput by users, 1 to 256."""
    plan = of_scale(load, scale)
    alone("load", replace(plan, names=names or plan.names), results)


@cli.command("in-flight")
@RESULTS_OPTION
@scales
def in_flight_command(results, scale) -> None:
    """Calls at the client library: 1 to 1,024 in flight from one event loop, and 1 to 256 client processes."""
    alone("in_flight", of_scale(in_flight, scale), results)


@cli.command("tail")
@RESULTS_OPTION
@scales
@click.option("--minutes", type=click.FloatRange(0.01), help="Length of the load at half of the capacity. [default: 1]")
def tail_command(results, scale, minutes) -> None:
    """The longest requests of a constant load at half and four fifths of the capacity, and the cause of each."""
    plan = of_scale(tail, scale)
    alone("tail", plan if minutes is None else plan.minutes(minutes), results)


@cli.command("gate")
@click.option(
    "--path", "paths", multiple=True, type=click.Choice(gate.PATHS), default=gate.PATHS, help="May be repeated."
)
@click.option("--accept", is_flag=True, help="Make what is counted now the baseline (all paths).")
@click.option("--slow", is_flag=True, hidden=True, help="With a deliberate slowdown: the gate must find it.")
def gate_command(paths, accept, slow) -> None:
    """Instructions of the hot paths against the committed baseline; fails when one has become more expensive."""
    found = {path: gate.count(path, slow=slow) for path in (gate.PATHS if accept else paths)}
    if accept:
        gate.save(found)
    counted_with, before = gate.baseline()
    found = gate.recounted(found, before, slow=slow)
    terminal.show(console, gate.summary(found, before))
    changed = gate.worse(found, before)
    for path in changed:
        terminal.show(console, gate.difference(path, found[path], before.get(path, gate.Counted(0, {}))))
    if counted_with != (here := gate.toolchain()):
        console.print(f"The baseline is of {counted_with}, this is {here}: shown, not judged.", highlight=False)
    elif changed:
        raise BenchError(
            f"{', '.join(changed)}: over {gate.TOLERANCE:.0%} more instructions than the baseline",
            "if it is worth it, `python -m bench gate --accept`",
        )


@cli.command("data")
def data_command() -> None:
    """Writes the request bodies that hey, vegeta and the k6 table scripts send to bench/data/."""
    for scenario in (BASELINE, OFFLOAD_TABLE, *(at_lines(lines)[0] for lines in RUN.curve_lines)):
        path = data.body(scenario)
        console.print(f"{path} {path.stat().st_size:,} bytes", highlight=False, soft_wrap=True)


def carry_out(settings: Settings, place: Path, *, everything: bool) -> None:
    """Measures, writes the report, prints the tables."""
    with Owned() as owned:
        described = machine.describe()
        folder = report.new_folder(place)
        progress = RunProgress(measure.planned_seconds(settings), console)
        with progress.shown():
            results = measure.Run(owned, settings, progress, folder).all()
    report.write(folder, described, settings, results)
    every = figures(results)
    terminal.summary(console, every)
    shown = parts.all_tables(results, every)
    for table in shown if everything else [tables.curve_table(every), tables.report_table(results, every)]:
        if table.rows:
            terminal.show(console, table)
    said(folder, results)


def said(folder: Path, results: Results) -> None:
    """What a reader wants to know beside the tables; the page last."""
    compared = ", ".join(f"{count} under {server}" for server, count in results.compared.items())
    console.print(f"Answers compared before the loads: {compared}; all equal.", highlight=False, soft_wrap=True)
    console.print(f"Charts: {folder / report.PAGE}", highlight=False, soft_wrap=True)
    wrong = [f"{name} failed: {reason}" for name, reason in results.failed.items()]
    if results.left_behind:
        wrong.append(f"a worker left behind {', '.join(results.left_behind)}")
    if wrong:
        raise BenchError("\n".join(wrong))


def main() -> int:
    """Runs the command line; the exit status is 0, 1 for a measurement that failed, 128 + n for signal n."""
    try:
        cli(standalone_mode=False)
    except Stopped as stopped:
        console.print(f"stopped by {stopped}; everything that was started has ended", highlight=False)
        return stopped.exit_code
    except BenchError as reason:
        console.print(f"error: {reason}", style="red", highlight=False, markup=False, soft_wrap=True)
        return 1
    except click.ClickException as reason:
        reason.show()
        return reason.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
