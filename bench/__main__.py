"""The command line: `python -m bench demo|run|micro|questions|memory|transport|overload|peers|load|in-flight|tail|ablation|gate|data`."""

import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import click
from rich.console import Console

from .runner import (
    ablation,
    analytics,
    data,
    gate,
    in_flight,
    load,
    machine,
    measure,
    memory,
    micro,
    overload,
    peers,
    report,
    tables,
    tail,
    targets,
    terminal,
    timeline,
    transport,
)
from .runner.errors import BenchError
from .runner.figures import figures
from .runner.owned import Owned, Stopped
from .runner.paths import RESULTS
from .runner.progress import RunProgress
from .runner.scenarios import BASELINE, DEMO, OFFLOAD_TABLE, QUICK, RUN, Settings, at_lines
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
        for option in (
            click.option(
                "--server", "servers", multiple=True, type=known, default=default.servers, help="May be repeated."
            ),
            click.option("--users", type=click.IntRange(1), default=default.users, help="Requests in flight."),
            click.option("--rounds", type=click.IntRange(1), help=f"Rounds of each load. [default: {default.rounds}]"),
            click.option(
                "--seconds", type=click.FloatRange(1), help=f"Length of a load. [default: {default.seconds:g}]"
            ),
            RESULTS_OPTION,
            click.option(
                "--report-lines",
                type=click.IntRange(0),
                default=default.report_lines,
                help="Order lines that the report is about; 0 leaves it out.",
            ),
            click.option("--curve/--no-curve", default=True, help="Measure also 20, 200 and 10,000 lines."),
        ):
            command = option(command)
        return command

    return add


def told(settings: Settings, servers, users, rounds, seconds, report_lines, curve) -> Settings:
    """The settings with what the command line says."""
    return replace(
        settings,
        servers=tuple(dict.fromkeys(servers)),
        users=users,
        rounds=rounds or settings.rounds,
        seconds=seconds or settings.seconds,
        curve_lines=settings.curve_lines if curve else (),
        report_lines=report_lines,
    )


@cli.command()
@knobs(DEMO)
def demo(results, **chosen) -> None:
    """The short run: about four minutes, two tables."""
    carry_out(told(DEMO, **chosen), results, everything=False)


@cli.command()
@knobs(RUN)
@click.option("--quick", is_flag=True, help="Fewer and shorter rounds.")
def run(results, quick, **chosen) -> None:
    """The long run: five rounds, the curve on both servers, equal arrival rates, single calls, and the targets."""
    carry_out(told(QUICK if quick else RUN, **chosen), results, everything=True)


@cli.command("micro")
@RESULTS_OPTION
def micro_command(results) -> None:
    """Single calls from Python, and the worker's start, memory and size."""
    folder = report.new_folder(results)
    with Owned() as owned:
        found = micro.measure(owned, folder / "logs")
    report.part(folder, "micro", found, [tables.echoes(found), tables.micro(found)])
    for table in (tables.echoes(found), tables.micro(found)):
        terminal.show(console, table)


@cli.command("transport")
@RESULTS_OPTION
@click.option("--quick", "scale", flag_value="--quick", help="Fewer and shorter rounds.")
@click.option("--check", "scale", flag_value="--check", help="Every path once; the figures mean nothing.")
def transport_command(results, scale) -> None:
    """The transport beside iceoryx2, a Unix socket and the bare cache line, in Rust: S1, S4, sizes, clients, spinning."""
    folder = report.new_folder(results)
    with Owned() as owned:
        found = transport.measure(owned, folder / "logs", scale or "")
    shown = [*tables.transport(found), tables.judged(targets.transport(found))]
    report.part(folder, "transport", found, shown)
    for table in shown:
        terminal.show(console, table)
    console.print(f"Written to {folder}", highlight=False, soft_wrap=True)


@cli.command("questions")
@RESULTS_OPTION
@click.option("--quick", "scale", flag_value="--quick", help="Fewer rows and rounds.")
@click.option("--check", "scale", flag_value="--check", help="Every question once; no figures to go by.")
def questions_command(results, scale) -> None:
    """Questions over tables by molt, DuckDB, Polars, pandas and datafusion-python on the same Arrow data: S5, S6, S7."""
    folder = report.new_folder(results)
    with Owned() as owned:
        found = analytics.measure(owned, folder / "logs", scale or "")
    shown = [*tables.questions(found), tables.judged(targets.questions(found))]
    report.part(folder, "questions", found, shown)
    for table in shown:
        terminal.show(console, table)


@cli.command("memory")
@RESULTS_OPTION
@click.option("--mib", type=click.IntRange(1), default=512, help="Size of the table.")
@click.option("--processes", type=click.IntRange(1), default=measure.READERS, help="How many read it.")
def memory_command(results, mib, processes) -> None:
    """What a resident table costs that many Django processes read, by proportional set size."""
    folder = report.new_folder(results)
    with Owned() as owned:
        found = memory.measure(owned, folder / "logs", mib, processes)
    shown = tables.memory_table(found)
    report.part(folder, "memory", found, [shown])
    terminal.show(console, shown)


@cli.command("overload")
@RESULTS_OPTION
@click.option("--seconds", type=click.FloatRange(0.5), help=f"Length of each rate. [default: {overload.Plan.seconds:g}]")
@click.option("--deadline", type=click.FloatRange(0.01), help=f"Seconds. [default: {overload.Plan.deadline:g}]")
@click.option("--queue", type=click.IntRange(1), help="Requests that may wait in the worker. [default: the worker's own]")
@click.option("--check", is_flag=True, help="Every path once; the figures mean nothing.")
def overload_command(results, seconds, deadline, queue, check) -> None:
    """Half to twice the capacity in an open loop, at the client library and under Django: S11."""
    plan = overload.CHECK if check else overload.Plan()
    plan = replace(plan, seconds=seconds or plan.seconds, deadline=deadline or plan.deadline, queue=queue)
    folder = report.new_folder(results)
    with Owned() as owned:
        found = overload.measure(owned, folder / "logs", plan)
    shown = [overload.table(found), tables.judged(overload.verdicts(found))]
    report.part(folder, "overload", found, shown)
    for table in shown:
        terminal.show(console, table)
    console.print(f"Written to {folder}", highlight=False, soft_wrap=True)
    if found["left_behind"]:
        raise BenchError(f"a worker left behind {', '.join(found['left_behind'])}")


@cli.command("peers")
@RESULTS_OPTION
@click.option("--quick", "scale", flag_value="quick", help="Fewer and shorter rounds, worker counts not searched.")
@click.option("--check", "scale", flag_value="check", help="Every path once; the figures mean nothing.")
@click.option("--peer", "names", multiple=True, help="Only this one; may be repeated.")
def peers_command(results, scale, names) -> None:
    """molt beside Go, process pools, dirty workers, Polars, DuckDB, Flight and others, all behind HTTP: S8, S9."""
    plan = replace({"quick": peers.QUICK, "check": peers.CHECK}.get(scale, peers.Plan()), names=names)
    folder = report.new_folder(results)
    console.print(f"about {peers.planned_seconds(plan) / 60:.0f} min", highlight=False)
    with Owned() as owned:
        say = partial(console.print, highlight=False, soft_wrap=True)
        found = peers.measure(owned, folder / "logs", plan, say)
    shown = [*peers.tables(found), tables.judged(peers.verdicts(found))]
    report.part(folder, "peers", found, shown)
    for table in shown:
        terminal.show(console, table)
    console.print(f"Written to {folder}", highlight=False, soft_wrap=True)
    if found["left_behind"]:
        raise BenchError(f"a worker left behind {', '.join(found['left_behind'])}")


@cli.command("ablation")
@RESULTS_OPTION
def ablation_command(results) -> None:
    """The same entries behind a plain Unix socket: what shared memory itself buys, 64 bytes to 16 MiB (half a minute)."""
    folder = report.new_folder(results)
    with Owned() as owned:
        found = ablation.measure(owned, folder / "logs")
    report.part(folder, "ablation", found, [ablation.table(found)])
    terminal.show(console, ablation.table(found))


@cli.command("timeline")
@RESULTS_OPTION
@click.option("--seconds", type=click.FloatRange(3), help=f"Length of each load. [default: {timeline.Plan.seconds:g}]")
@click.option("--check", is_flag=True, help="Every path once; the figures mean nothing.")
def timeline_command(results, seconds, check) -> None:
    """A kill -9 and an upgrade of the worker under a constant arrival rate: every request, and how many failed."""
    plan = timeline.CHECK if check else timeline.Plan()
    plan = replace(plan, seconds=seconds or plan.seconds)
    folder = report.new_folder(results)
    console.print(f"about {plan.total:.0f} s", highlight=False)
    with Owned() as owned:
        found = timeline.measure(owned, folder / "logs", plan)
    shown = [timeline.table(found), tables.judged(timeline.verdicts(found))]
    report.part(folder, "timeline", found, shown)
    for table in shown:
        terminal.show(console, table)
    console.print(f"Written to {folder}", highlight=False, soft_wrap=True)
    if found["left_behind"]:
        raise BenchError(f"a worker left behind {', '.join(found['left_behind'])}")


@cli.command("load")
@RESULTS_OPTION
@click.option("--quick", "scale", flag_value="quick", help="Fewer sides, rates and seconds.")
@click.option("--check", "scale", flag_value="check", help="Every path once; the figures mean nothing.")
@click.option("--peer", "names", multiple=True, help="Only this one; may be repeated.")
def load_command(results, scale, names) -> None:
    """Latency against offered load, all sides at the same arrival rates, and throughput by users, 1 to 256."""
    plan = {"quick": load.QUICK, "check": load.CHECK}.get(scale, load.Plan())
    plan = replace(plan, names=names or plan.names)
    folder = report.new_folder(results)
    console.print(f"about {load.planned_seconds(plan) / 60:.0f} min", highlight=False)
    with Owned() as owned:
        say = partial(console.print, highlight=False, soft_wrap=True)
        found = load.measure(owned, folder / "logs", plan, say)
    finished(folder, "load", found, [*load.tables(found), tables.judged(load.verdicts(found))])


@cli.command("in-flight")
@RESULTS_OPTION
@click.option("--quick", "scale", flag_value="quick", help="Fewer points and seconds.")
@click.option("--check", "scale", flag_value="check", help="Every path once; the figures mean nothing.")
def in_flight_command(results, scale) -> None:
    """Calls at the client library: 1 to 1,024 in flight from one event loop, and 1 to 256 client processes."""
    plan = {"quick": in_flight.QUICK, "check": in_flight.CHECK}.get(scale, in_flight.Plan())
    folder = report.new_folder(results)
    console.print(f"about {in_flight.planned_seconds(plan):.0f} s", highlight=False)
    with Owned() as owned:
        found = in_flight.measure(owned, folder / "logs", plan)
    finished(folder, "in_flight", found, in_flight.tables(found))


@cli.command("tail")
@RESULTS_OPTION
@click.option("--minutes", type=click.FloatRange(0.01), help="Length of the load at half of the capacity. [default: 1]")
@click.option("--quick", "scale", flag_value="quick", help="Seconds only.")
@click.option("--check", "scale", flag_value="check", help="Every path once; the figures mean nothing.")
def tail_command(results, minutes, scale) -> None:
    """The longest requests of a constant load at half and four fifths of the capacity, and the cause of each."""
    plan = {"quick": tail.QUICK, "check": tail.CHECK}.get(scale, tail.Plan())
    plan = plan if minutes is None else plan.minutes(minutes)
    folder = report.new_folder(results)
    console.print(f"about {tail.planned_seconds(plan):.0f} s", highlight=False)
    with Owned() as owned:
        found = tail.measure(owned, folder / "logs", plan, partial(console.print, highlight=False, soft_wrap=True))
    finished(folder, "tail", found, [*tail.tables(found), tables.judged(tail.verdicts(found))])


def finished(folder: Path, name: str, found: dict, shown: list[tables.Table]) -> None:
    """Writes a part, shows it, and fails where a worker left something behind."""
    report.part(folder, name, found, shown)
    for table in shown:
        if table.rows:
            terminal.show(console, table)
    console.print(f"Written to {folder}", highlight=False, soft_wrap=True)
    if found["left_behind"]:
        raise BenchError(f"a worker left behind {', '.join(found['left_behind'])}")


@cli.command("gate")
@click.option("--path", "paths", multiple=True, type=click.Choice(gate.PATHS), default=gate.PATHS, help="May be repeated.")
@click.option("--accept", is_flag=True, help="Make what is counted now the baseline (all paths).")
@click.option("--slow", is_flag=True, hidden=True, help="With a deliberate slowdown: the gate must find it.")
def gate_command(paths, accept, slow) -> None:
    """Instructions of the hot paths against the committed baseline; fails when one has become more expensive."""
    found = {path: gate.count(path, slow=slow) for path in (gate.PATHS if accept else paths)}
    if accept:
        gate.save(found)
    counted_with, before = gate.baseline()
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
    shown = (
        tables.everything(results, every)[1:]
        if everything
        else [tables.curve_table(every), tables.report_table(results, every)]
    )
    for table in shown:
        if table.rows:
            terminal.show(console, table)
    said(folder, results)


def said(folder: Path, results: measure.Results) -> None:
    """What a reader wants to know beside the table."""
    compared = ", ".join(f"{count} under {server}" for server, count in results.compared.items())
    console.print(f"Answers compared before the loads: {compared}; all equal.", highlight=False, soft_wrap=True)
    console.print(f"Charts: {folder / 'summary.html'}", highlight=False, soft_wrap=True)
    if results.left_behind:
        raise BenchError(f"a worker left behind {', '.join(results.left_behind)}")


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
