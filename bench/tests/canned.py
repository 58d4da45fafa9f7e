"""What the parts of a run would have found, in the shapes in which they tell it, without running anything."""

from bench.runner import ablation, timeline

SIDES = {
    "orders": {"plain Python": 100.0, "tuned Python": 330.0, "Go": 460.0, "process pool": 220.0,
               "molt": 700.0, "molt, granian": 760.0},
    "table": {"plain Python": 75.0, "numpy": 735.0, "Polars": 420.0, "DuckDB": 190.0, "molt": 710.0},
}  # fmt: skip
"""What each answers a second at most."""
TITLES = {"orders": "2,000 order lines as JSON", "table": "10,000 rows as Arrow"}
RATES = (25.0, 60.0, 120.0, 240.0, 480.0, 720.0)
CARRIED = {"p50_ms": 20, "p99_ms": 1_000, "p999_ms": 10_000, "p9999_ms": 100_000}


def percentiles(ms: float, requests: int) -> dict:
    """Percentiles about a median, None where the requests do not carry them."""
    grown = zip(CARRIED, (1, 3, 7, 15), strict=True)
    return {key: round(ms * times, 3) if requests >= CARRIED[key] else None for key, times in grown}


def point(capacity: float, rate: float) -> dict:
    """One rate at one side: it grows slower towards its capacity, and does not keep up beyond."""
    answered = min(rate, capacity)
    ms = 1000 / capacity / max(0.05, 1 - answered / capacity / 1.02)
    return {
        "rate": rate, "answered": answered, **percentiles(ms, round(answered * 20)), "max_ms": 20 * ms,
        "samples": round(answered * 20),
        "errors": 0, "not_started": round(rate - answered), "cpu_s": 2.0, "generator_cpu_s": 0.4,
    }  # fmt: skip


def asked(capacity: float) -> list[dict]:
    """The rates until the first that the side no longer keeps up with."""
    points = [point(capacity, rate) for rate in RATES]
    good = sum(one["answered"] >= 0.9 * one["rate"] for one in points)
    return points[: good + 1]


def described(name: str) -> dict:
    """What every side says about itself."""
    server = "granian" if name.endswith("granian") else "" if name == "Go" else "gunicorn"
    return {
        "name": name, "server": server, "version": "1.0", "how": "as one would", "command": f"serve {name}", "compared": 330,
    }  # fmt: skip


def load() -> dict:
    """Every side at every rate, and with more and more in flight."""

    def side(name: str, capacity: float) -> dict:
        users = [
            {"users": count, "rps": capacity * count / (count + 1), "p50_ms": 1000 * count / capacity,
             "p99_ms": 2500 * count / capacity}
            for count in (1, 4, 16, 64)
        ]  # fmt: skip
        return {**described(name), "capacity": capacity, "points": asked(capacity), "concurrency": users}

    workloads = [
        {
            "group": group, "title": TITLES[group], "capacity": max(sides.values()),
            "sides": [side(*one) for one in sides.items()],
        }
        for group, sides in SIDES.items()
    ]  # fmt: skip
    return {"seconds": 20.0, "cores": 2, "seed": 1, "workloads": workloads, "missing": {}, "left_behind": []}


def peers() -> dict:
    """Every side in a closed loop, and at one arrival rate."""

    def side(name: str, rps: float) -> dict:
        arrival = {
            "answered": 60.0,
            "p50_ms": 2.0,
            "p99_ms": 4000 / rps,
            "p999_ms": None,
            "requests": 1_000,
            "errors": 0,
            "not_started": 0,
        }
        return {
            **described(name), "count": 2, "counted": "web processes", "threads": None, "threads_tried": {},
            "tried": {"1": rps / 2, "2": rps}, "rps": rps, "rps_from": rps * 0.9, "rps_to": rps * 1.15,
            "p50_ms": 10.0, "p99_ms": 30.0, "p999_ms": 40.0, "errors": 0, "requests_per_cpu_s": rps * 0.9, "cpu_s": 5.0,
            "generator_cpu_s": 1.0, "arrival": arrival,
        }  # fmt: skip

    workloads = [
        {"group": group, "title": TITLES[group], "arriving": 60.0, "sides": [side(*one) for one in sides.items()]}
        for group, sides in SIDES.items()
    ]
    return {
        "users": 16, "rounds": 5, "seconds": 3.5, "cores": 2, "workloads": workloads, "missing": {"iceoryx2 (orders)": "no wheel"},
        "left_behind": [], "ablation": without_shared_memory(),
    }  # fmt: skip


def without_shared_memory() -> dict:
    """The socket is the faster at 64 KiB."""

    def row(entry: str, size: int, lines: int | None, way: str, us: float) -> dict:
        rest = {"p50_us": us, "p50_from_us": us * 0.8, "p50_to_us": us * 1.3, "cpu_us": us * 1.1}
        return {"entry": entry, "way": way, "bytes": size, "lines": lines, **rest}

    times = {64: (5, 47), 4096: (25, 44), 65536: (52, 47), 1 << 24: (4220, 6537)}
    rows = [
        row("echo", size, None, way, us)
        for size, both in times.items()
        for way, us in zip((ablation.MOLT, ablation.SOCKET), both, strict=True)
    ]
    for lines, both in {20: (37, 45), 2_000: (759, 688)}.items():
        rows += [
            row("order_summary", lines * 130, lines, way, us)
            for way, us in zip((ablation.MOLT, ablation.SOCKET), both, strict=True)
        ]
    return {"rows": rows, "rounds": 5}


def disturbed(failed: int = 1) -> dict:
    """A hundred requests a place, one every 100 ms: a kill after three seconds, an upgrade after six."""
    records = [(50.0 + number / 10, 200.0 if number == 30 else 2.0, timeline.ANSWERED) for number in range(100)]
    for number in range(31, 31 + failed):
        records[number] = (records[number][0], 5.0, "HTTP 503, busy")
    moments = [timeline.Moment(timeline.KILL, 53.05, 53.2), timeline.Moment(timeline.UPGRADE, 56.0, 56.1)]
    places = [timeline._place(name, 10.0, 25.0, records[::-1], moments) for name in timeline.PLACES]
    return {"plan": {"seconds": 10.0}, "places": places, "left_behind": []}


def memory() -> dict:
    """Eight processes with 2 GiB."""
    table = {"table_mb": 2147.0, "processes": 8, "reader_rss_mb": 2147.0}
    shared = {
        "way": "one table resident in the arena",
        **table,
        "reader_pss_mb": 240.0,
        "worker_pss_mb": 240.0,
        "all_pss_mb": 2160.0,
        "tables": 1.006,
    }
    copies = {
        "way": "a Polars data frame in each process",
        **table,
        "reader_pss_mb": 2147.0,
        "worker_pss_mb": 0.0,
        "all_pss_mb": 17180.0,
        "tables": 8.002,
    }
    return {"mib": 2048, "processes": 8, "scaled_down": None, "shared": shared, "copies": copies}


def in_flight() -> dict:
    """One to a thousand calls on their way, one to sixteen processes; the last point has too few calls for a p99."""

    def at(by: str, n: int, us: float) -> dict:
        p99 = 3 * us * (n + 3) if n < 1024 else None
        return {by: n, "calls_per_s": 1e6 / us * n / (n + 3), "p50_us": us * (n + 3), "p99_us": p99, "cpu_us": 2 * us}

    series = [
        {"name": name, "points": [at("in_flight", n, us) for n in (1, 4, 16, 64, 256, 1024)]}
        for name, us in (("echo of 64 bytes", 5.0), ("order summary, 2,000 lines", 700.0))
    ]
    clients = {"name": "echo of 64 bytes, client processes", "points": [at("clients", n, 5.0) for n in (1, 4, 16)]}
    return {"rounds": 5, "series": series, "clients": clients, "left_behind": []}


def tail() -> dict:
    """Two loads at two places; at 50% one stall beyond the limit."""

    def at(share: float, rate: float, ms: float) -> dict:
        stalls = [
            {"at_s": 10.0 * number, "ms": ms * number, "cause": cause, "requests": 3}
            for number, cause in enumerate(("scheduler", "GIL"), start=4)
        ]
        return {
            "share": share, "rate": rate, "seconds": 600.0, "requests": round(rate * 600), **percentiles(ms, round(rate * 600)),
            "max_ms": 20 * ms, "limit_ms": 15 * ms, "above_limit": 0, "stalls": stalls, "causes": {"scheduler": 7, "GIL": 2},
        }  # fmt: skip

    places = [("the client library", 9_000.0), ("Django under granian", 700.0)]
    told = [
        {"name": name, "capacity": most, "loads": [at(share, most * share, 800 / most) for share in (0.5, 0.8)]}
        for name, most in places
    ]
    return {"lines": 2_000, "places": told, "left_behind": []}


def overload() -> dict:
    """Beyond capacity the client library and ASGI hold on."""
    outcomes = {"late": 0, "busy": 5, "timeout": 0, "gave_up": 0, "other": 0, "behind_p99_ms": 1.0}
    steps = [
        {
            "place": place, "share": share, "rate": 100 * share, "seconds": 10.0, "sent": 1000, "in_time": 900, **outcomes,
            "p50_ms": 2.0, "p99_ms": 20.0, "p999_ms": 90.0, "max_ms": 95.0, "answered": min(100 * share, 98.0),
        }
        for place in ("client", "ASGI", "WSGI")
        for share in (0.5, 1.0, 2.0)
    ]  # fmt: skip
    capacity = {"client": 100.0, "ASGI": 100.0, "WSGI": 100.0}
    return {"plan": {"deadline": 0.5}, "capacity": capacity, "steps": steps, "left_behind": []}


def questions() -> dict:
    """Tables handed over, resident questions, and a row of a resident table."""

    def row(rows: int, question: str, engine: str, ms: float) -> dict:
        return {
            "rows": rows, "question": question, "engine": engine, "ms": ms, "from_ms": ms * 0.9, "to_ms": ms * 1.2, "answer_rows": 4,
        }  # fmt: skip

    engines = {"molt": 1.1, "DuckDB": 4.0, "Polars": 3.0, "pandas": 9.0}
    handed = [
        row(rows, "filter and sort", name, ms * (1 + rows / 1e5))
        for rows in (1_000, 10_000, 1_000_000)
        for name, ms in {"molt, an entry": 0.8, **engines}.items()
    ]
    resident = [
        row(10_000_000, f"question {number}", name, ms * 40 * number)
        for number in (1, 2, 3)
        for name, ms in {**engines, "Polars, streaming": 2.5}.items()
    ]
    handing = {
        "bytes": {"tiny": 1024, "huge": 1 << 30},
        "us": {"tiny": 100.0, "huge": 103.0},
        "copied_bytes": {"tiny": 0, "huge": 0},
    }
    return {"threads": 2, "rounds": 5, "missing": {}, "handed": handed, "resident": resident, "handing": handing}


def break_even() -> dict:
    """It pays from 90 us on."""
    points = [
        {"lines": lines, "plain_us": 35.0 + 4 * lines, "offloaded_us": 118.0 + lines, "plain_cpu_us": 1.0, "offloaded_cpu_us": 2.0}
        for lines in (1, 5, 20, 50, 200)
    ]  # fmt: skip
    return {"points": points, "us": 145.0, "cpu_us": None}
