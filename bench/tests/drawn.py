"""What the charts of a page must show, read straight out of its details.json."""

from typing import Any

Traces = dict[str, tuple[list, list]]
"""By its name, the numbers of a trace: x and y."""

NAMES = {
    "baseline": "plain Python", "tuned": "tuned Python", "offload": "molt", "baseline_table": "plain Python", "offload_table": "molt",
    "baseline_report": "plain Python", "offload_report": "molt", "polars_report": "Polars", "duckdb_report": "DuckDB",
}  # fmt: skip
GROUPS = {"orders": ("baseline", "tuned", "offload"), "table": ("baseline_table", "offload_table")}
SHARES = {"50%": "p50_ms", "99%": "p99_ms", "99.9%": "p999_ms", "99.99%": "p9999_ms", "slowest": "max_ms"}
BEYOND = 10


def expected(details: dict[str, Any]) -> dict[str, Traces]:
    """Every chart by its name, with the traces that carry numbers."""
    out = django(details)
    for part, charts in (
        ("load", load), ("peers", peers), ("timeline", disturbed), ("memory", memory), ("micro", single), ("transport", transport),
        ("in_flight", in_flight), ("questions", questions), ("tail", tail), ("overload", overload),
    ):  # fmt: skip
        if details[part] is not None:
            out |= charts(details[part])
    without = details["ablation"] or (details["peers"] or {}).get("ablation")
    return out | (ablation(without) if without else {})


def django(details: dict) -> dict[str, Traces]:
    """The loads of Django's own endpoints."""
    medians = details["medians"]
    servers = list(dict.fromkeys(one["server"] for one in medians))
    pairs = {(one["scenario"]["name"], one["server"]): one for one in medians if one["kind"] == "pair"}
    out: dict[str, Traces] = {}
    for group, names in GROUPS.items():
        out[f"throughput-{group}"] = {
            NAMES[name]: (servers, [pairs[name, server]["rps"] for server in servers]) for name in names
        }
        for server in servers:
            out[f"distribution-{group}-{server}"] = {NAMES[name]: percentiles(pairs[name, server]) for name in names}
    if details["curve"]:
        by: dict[str, list[dict]] = {}
        for point in details["curve"]:
            by.setdefault(f"under {point['server']}", []).append(point)
        out["growth"] = {
            name: ([max(one["saved_ms"], 0.001) for one in points], [one["offload_rps"] / one["plain_rps"] for one in points])
            for name, points in by.items()
        }  # fmt: skip
    asked = [one for one in medians if one["kind"] == "report"]
    if asked:
        names = [NAMES[one["scenario"]["name"]] for one in asked]
        held = [details["web_process_mb"][one["scenario"]["name"]] for one in asked]
        out["report-speed"] = {"requests/s": (names, [one["rps"] for one in asked])}
        out["report-memory"] = {"MB a web process": (names, held)}
    return out


def percentiles(one: dict) -> tuple[list, list]:
    """Those of which ten requests at least were slower, on an axis that stretches towards the slowest."""
    grid = sorted((float(key[2:-1]), ms) for key, ms in one["latency"].items() if key.startswith("p("))
    known = [(percent, ms) for percent, ms in grid if one["samples"] * (100 - percent) >= BEYOND * 100 - 1e-4]
    return [1 / (1 - percent / 100) for percent, _ in known], [ms for _, ms in known]


def columns(rows: list[dict], x: str, y: str) -> tuple[list, list]:
    """Two columns of the rows, sorted by the first."""
    ordered = sorted(rows, key=lambda row: row[x])
    return [row[x] for row in ordered], [row[y] for row in ordered]


def grouped(rows: list[dict], name: str, x: str, y: str) -> Traces:
    """The same for each of those that a column names."""
    return {one: columns([row for row in rows if row[name] == one], x, y) for one in {row[name] for row in rows}}


def load(found: dict) -> dict[str, Traces]:
    """Latency against offered load, throughput against concurrency, percentiles at the highest rate that all answer."""
    out: dict[str, Traces] = {}
    for workload in found["workloads"]:
        group, sides = workload["group"], workload["sides"]
        carried = [
            key for key in ("p50_ms", "p99_ms") if any(p[key] is not None for side in sides for p in side["points"])
        ]
        if carried:
            out[f"latency-{group}"] = {
                f"{side['name']}{panel}": columns(side["points"], "rate", key)
                for side in sides
                for panel, key in zip(("", " x2"), carried, strict=False)
            }
        if len(sides[0]["concurrency"]) > 1:
            out[f"concurrency-{group}"] = {side["name"]: columns(side["concurrency"], "users", "rps") for side in sides}
        good = [{p["rate"] for p in side["points"] if p["answered"] >= 0.9 * p["rate"]} for side in sides]
        if rate := max(set.intersection(*good), default=0):
            at = {side["name"]: next(p for p in side["points"] if p["rate"] == rate) for side in sides}
            out[f"percentiles-{group}"] = {name: shares(point) for name, point in at.items()}
    return out


def shares(one: dict) -> tuple[list, list]:
    """The percentiles that there are."""
    known = [(share, one[key]) for share, key in SHARES.items() if one.get(key) is not None]
    return [share for share, _ in known], [ms for _, ms in known]


def peers(found: dict) -> dict[str, Traces]:
    """Bars to the right: the sides stand on y."""
    out: dict[str, Traces] = {}
    for workload in found["workloads"]:
        sides = sorted(workload["sides"], key=lambda side: side["rps"])
        names = [side["name"] for side in sides]
        out[f"peers-{workload['group']}"] = {
            "requests/s": ([side["rps"] for side in sides], names),
            "requests per CPU second x2": ([side["requests_per_cpu_s"] for side in sides], names),
            "p99 at equal arrivals, ms (less is better) x3": ([side["arrival"]["p99_ms"] for side in sides], names),
        }
    return out


def disturbed(found: dict) -> dict[str, Traces]:
    """Every request, the answered and the failed apart."""
    out: dict[str, Traces] = {}
    for place in found["places"]:
        requests = place["requests"]
        every = list(zip(requests["due_s"], requests["ms"], requests["outcome"], strict=True))
        good = [(due, ms) for due, ms, said in every if said == "answered"]
        bad = [(due, ms) for due, ms, said in every if said != "answered"]
        out[f"timeline-{place['place'].lower()}"] = {
            f"answered ({len(good):,})": ([due for due, _ in good], [ms for _, ms in good]),
            f"failed ({place['failed']:,})": ([due for due, _ in bad], [ms for _, ms in bad]),
        }
    return out


def memory(found: dict) -> dict[str, Traces]:
    """All processes together."""
    ways = [found["copies"], found["shared"]]
    return {"memory": {"all processes": ([way["all_pss_mb"] for way in ways], [way["way"] for way in ways])}}


def single(found: dict) -> dict[str, Traces]:
    """Single calls and the break-even."""
    rows = found["echo_64_bytes"]["rows"]
    echo = {peer: [row for row in rows if row["peer"] == peer] for peer in {row["peer"] for row in rows}}
    points = found["break_even"]["points"]
    return {
        "echo": {peer: ([row["way"] for row in mine], [row["p50_us"] for row in mine]) for peer, mine in echo.items()},
        "break-even": {
            "plain view": columns(points, "lines", "plain_us"), "offloaded view": columns(points, "lines", "offloaded_us"),
        },
    }  # fmt: skip


def ablation(found: dict) -> dict[str, Traces]:
    """Both ways to call an entry."""
    return {
        f"ablation-{entry}": grouped([row for row in found["rows"] if row["entry"] == entry], "way", x, "p50_us")
        for entry, x in (("echo", "bytes"), ("order_summary", "lines"))
    }


def transport(found: dict) -> dict[str, Traces]:
    """Payloads and clients."""
    parts = {part: [row for row in found["rows"] if row["part"] == part] for part in ("sizes", "clients")}
    return {
        "transport-sizes": grouped(parts["sizes"], "peer", "size", "p50_us"),
        "transport-clients": grouped(parts["clients"], "peer", "clients", "calls_per_s"),
    }


def in_flight(found: dict) -> dict[str, Traces]:
    """Both panels, of each entry and of client processes."""
    keys = {"calls/s": "calls_per_s", "p50 x2": "p50_us", "p99 x2": "p99_us", "CPU a call x2": "cpu_us"}
    every = [*((one["points"], "in_flight") for one in found["series"]), (found["clients"]["points"], "clients")]
    return {
        f"in-flight-{number}": {name: columns(points, by, key) for name, key in keys.items()}
        for number, (points, by) in enumerate(every)
    }


def questions(found: dict) -> dict[str, Traces]:
    """Rows that come with the question, and resident ones: those stand on y."""
    rows = found["resident"]
    resident = {engine: [row for row in rows if row["engine"] == engine] for engine in {row["engine"] for row in rows}}
    return {
        "rows": grouped(found["handed"], "engine", "rows", "ms"),
        "resident": {
            engine: ([row["ms"] for row in mine], [row["question"] for row in mine])
            for engine, mine in resident.items()
        },
    }


def tail(found: dict) -> dict[str, Traces]:
    """Percentiles of every load, and its stalls by their cause."""
    out: dict[str, Traces] = {"tail-percentiles": {}}
    for place in found["places"]:
        stalls: Traces = {}
        for one in place["loads"]:
            out["tail-percentiles"][f"{place['name']} at {one['share']:.0%}"] = shares(one)
            for cause, count in one["causes"].items():
                mine = [stall for stall in one["stalls"] if stall["cause"] == cause]
                where = [stall["at_s"] for stall in mine], [stall["ms"] for stall in mine]
                if mine:  # the longest are listed alone
                    stalls[f"{cause}, at {one['share']:.0%} ({count:,})"] = where
        out[f"stalls-{place['name'].lower().replace(' ', '-')}"] = stalls
    return out


def overload(found: dict) -> dict[str, Traces]:
    """Answers in time, as a share of what can be answered."""
    said = {"client": "the client library", "ASGI": "Django, ASGI", "WSGI": "Django, WSGI"}
    out: Traces = {}
    for place, name in said.items():
        x, answered = columns([step for step in found["steps"] if step["place"] == place], "share", "answered")
        out[name] = x, [rate / found["capacity"][place] for rate in answered]
    return {"overload": out}
