"""Runs the fuzz targets one after the other, and says at the end what they did. `make fuzz SECONDS=n` calls it.

New inputs that reach new code go to the folder `--found`; the kept corpus is only read, unless `--keep` merges into it
what adds to it. Needs nothing but the standard library.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
PULSE = re.compile(r"#(\d+)\s+\w+\s+cov: (\d+) ft: \d+ corp: (\d+)/\S+ .*?exec/s: (\d+)")
# One input may take so long and allocate so much at once: anything beyond is a finding.
LIMITS = ["-timeout=20", "-malloc_limit_mb=256", "-rss_limit_mb=2048"]
OPTIONS = ["-max_len=8192", "-print_funcs=0"]


def targets(binaries: Path, wanted: list[str]) -> list[Path]:
    names = [path.stem for path in sorted((HERE / "fuzz_targets").glob("*.rs"))]
    unknown = set(wanted) - set(names)
    if unknown:
        sys.exit(f"no target is called {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    return [binaries / name for name in wanted or names]


def fuzz(binary: Path, seconds: int, found: Path) -> dict:
    """One target for so many seconds; a line that changes as it goes."""
    own, kept = found / "corpus" / binary.name, HERE / "corpus" / binary.name
    artifacts = found / "artifacts" / binary.name
    own.mkdir(parents=True, exist_ok=True)
    artifacts.mkdir(parents=True, exist_ok=True)
    log = found / f"{binary.name}.log"
    command = [binary, own, kept, f"-max_total_time={seconds}", f"-artifact_prefix={artifacts}/", *LIMITS, *OPTIONS]
    result = {"target": binary.name, "runs": 0, "edges": 0, "kept": len(list(kept.iterdir())), "inputs": 0, "log": log}
    started, before = time.monotonic(), set(artifacts.iterdir())
    with log.open("w") as out:
        process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, errors="replace")
        for line in process.stderr:
            out.write(line)
            if pulse := PULSE.match(line):
                result["runs"], result["edges"], result["inputs"] = (int(pulse[n]) for n in (1, 2, 3))
                show(result, time.monotonic() - started, seconds)
        code = process.wait()
    result["seconds"] = time.monotonic() - started
    result["findings"] = sorted(set(artifacts.iterdir()) - before)
    result["failed"] = code != 0
    return result


def show(result: dict, passed: float, seconds: int) -> None:
    text = f"{result['target']:10} {passed:4.0f}/{seconds} s  {result['runs']:>10,} inputs  {result['edges']:>5} edges"
    end = "\r" if sys.stdout.isatty() else "\n"
    if end == "\r" or passed - result.get("said", -10) >= 10:
        result["said"] = passed
        print(text, end=end, flush=True)


def summary(results: list[dict]) -> bool:
    print(f"\n{'target':10} {'seconds':>7} {'inputs':>12} {'per second':>10} {'edges':>6} {'kept':>5} {'now':>5}  findings")
    for r in results:
        rate = r["runs"] / max(r["seconds"], 0.001)
        findings = ", ".join(map(str, r["findings"])) or (f"failed, see {r['log']}" if r["failed"] else "none")
        numbers = f"{r['seconds']:7.0f} {r['runs']:12,} {rate:10,.0f} {r['edges']:6} {r['kept']:5} {r['inputs']:5}"
        print(f"{r['target']:10} {numbers}  {findings}")
    return not any(r["failed"] for r in results)


def keep(binary: Path, found: Path) -> None:
    """The smallest set of inputs that reaches what all of them reach becomes the kept corpus."""
    kept, own = HERE / "corpus" / binary.name, found / "corpus" / binary.name
    with tempfile.TemporaryDirectory() as folder:
        sources = [path for path in (kept, own) if path.is_dir()]
        # Edges, however often they are taken: to count that too would keep ten times as many.
        merge = [binary, "-set_cover_merge=1", "-use_counters=0", "-max_len=4096", *LIMITS, folder, *sources]
        subprocess.run(merge, check=True, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        # Inputs that were written by hand or found a defect have names, and stay.
        named = {path.name for path in kept.iterdir() if not re.fullmatch(r"[0-9a-f]{40}", path.name)}
        known = {(kept / name).read_bytes() for name in named}
        for path in kept.iterdir():
            if path.name not in named:
                path.unlink()
        for path in Path(folder).iterdir():
            if path.read_bytes() not in known:
                shutil.copy(path, kept / path.name)
    files = list(kept.iterdir())
    print(f"{binary.name:10} {len(files)} inputs, {sum(path.stat().st_size for path in files):,} bytes")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binaries", type=Path, help="the folder of the built targets")
    parser.add_argument("targets", nargs="*", help="all, when none is named")
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--found", type=Path, required=True, help="folder for new inputs, logs and findings")
    parser.add_argument("--keep", action="store_true", help="do not fuzz: merge what was found into the kept corpus")
    options = parser.parse_args()
    binaries = targets(options.binaries, options.targets)
    if options.keep:
        for binary in binaries:
            keep(binary, options.found)
        return
    results = []
    for binary in binaries:
        results.append(fuzz(binary, options.seconds, options.found))
        if sys.stdout.isatty():
            print(" " * 78, end="\r")
    if not summary(results):
        sys.exit("an input in `findings` repeats each: run the target's program with it")


if __name__ == "__main__":
    main()
