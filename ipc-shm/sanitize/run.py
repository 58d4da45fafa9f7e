"""The transport under the address and the thread sanitizer. `make sanitize` calls it; spec/proofs.md tells what it shows.

The compiler's unstable flags are let through for these commands alone. Its standard library is the one that comes with
it, built without a sanitizer: rebuilding it would need its sources, which a plain toolchain does not carry. For the address
sanitizer that costs only checks inside of the library's own code. The thread sanitizer would not see a lock that is taken in
the library's slow paths, and would report what the lock protects: these few functions are wrapped at link time and
tell it what they order.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
CRATE = HERE.parent
# The exit code of a program in which the thread sanitizer found something.
FOUND = 66
# No scenario takes this long, on however busy a machine.
LONGEST = 300

# std's slow paths of Mutex, RwLock and Condvar. Their names hold a hash, so they are read out of a program that uses them.
SLOW_PATHS = re.compile(
    r"3std3sys4sync(5mutex5futex\S*_contended|6rwlock5futex\S*(read|write)_contended|7condvar5futex\S*7Condvar(4wait|12wait_timeout))$"
)
WRAPS = {
    "_contended": "void __real_{0}(void *);\nvoid __wrap_{0}(void *lock) {{ __real_{0}(lock); __tsan_acquire(lock); }}\n",
    "4wait": "void __real_{0}(void *, void *);\nvoid __wrap_{0}(void *c, void *lock)\n"
    "{{ __tsan_release(lock); __real_{0}(c, lock); __tsan_acquire(lock); }}\n",
    "12wait_timeout": "bool __real_{0}(void *, void *, uint64_t, uint32_t);\n"
    "bool __wrap_{0}(void *c, void *lock, uint64_t s, uint32_t ns)\n"
    "{{ __tsan_release(lock); bool in_time = __real_{0}(c, lock, s, ns); __tsan_acquire(lock); return in_time; }}\n",
}

# Mutants of tests/mutants/list.rs that leave plain bytes without order, and the scenario in which that must be seen. None in
# which two accesses would have to meet: order is missing in every run, a meeting is luck.
RACES = {
    "the tail is not released": "frames",
    "the tail is not acquired": "frames",
    "the head is not released": "frames",
    "the head is not acquired": "frames",
    "an extent is not released": "extents",
    "an extent is not acquired": "extents",
    "a release is not released": "leases",
    "releases are not acquired": "leases",
}


# Tests whose child may map only so much: the address sanitizer itself maps terabytes, and the child would not start. The fuzz
# target `table` does the same under it, with a limit of the fuzzer's own.
LIMITED = ["declared_sizes_are_never_allocated_unseen", "a_table_cut_anywhere_is_an_error", "flipped_bits_are_an_error_or_a_sound_table"]


def fail(what: str) -> None:
    sys.exit(f"sanitize: {what}")


def host() -> str:
    said = subprocess.run(["rustc", "-vV"], check=True, capture_output=True, text=True).stdout
    return re.search(r"^host: (.*)$", said, re.M)[1]


def environment(flags: list[str]) -> dict[str, str]:
    return os.environ | {"RUSTC_BOOTSTRAP": "1", "CARGO_ENCODED_RUSTFLAGS": "\x1f".join(flags)}


def build(manifest: Path, out: Path, flags: list[str], *what: str) -> Path:
    """Where the programs are."""
    command = ["cargo", "build", "--quiet", "--release", "--locked", "--manifest-path", manifest, "--target", host()]
    subprocess.run([*command, "--target-dir", out, *what], env=environment(flags), check=True)
    return out / host() / "release"


def compile_alone(source: Path, program: Path, flags: list[str]) -> None:
    command = ["rustc", *flags, "--edition", "2024", "--target", host(), "-O", "-o", program, source]
    built = subprocess.run(command, env=environment([]), capture_output=True, text=True)
    if built.returncode != 0:
        fail(f"{source.name} does not compile:\n{built.stderr}")


def wrap_locks(out: Path, flags: list[str]) -> list[str]:
    """The flags with which std's locks tell the thread sanitizer what they order."""
    probe = out / "probe"
    compile_alone(HERE / "probe.rs", probe, flags)
    symbols = subprocess.run(["nm", probe], check=True, capture_output=True, text=True).stdout.split("\n")
    names = [line.split()[2] for line in symbols if re.search(r" T ", line) and SLOW_PATHS.search(line)]
    if missing := [end for end in WRAPS if not any(name.endswith(end) for name in names)]:
        fail(f"this toolchain's standard library has no lock whose name ends with {', '.join(missing)}: see SLOW_PATHS")
    text = "#include <stdbool.h>\n#include <stdint.h>\nvoid __tsan_acquire(void *);\nvoid __tsan_release(void *);\n"
    for name in names:
        text += next(wrap for end, wrap in WRAPS.items() if name.endswith(end)).format(name)
    source, wraps = out / "locks.c", out / "locks.o"
    source.write_text(text)
    subprocess.run(["cc", "-O1", "-c", source, "-o", wraps], check=True)
    flags = [*flags, f"-Clink-arg={wraps}", *(f"-Clink-arg=-Wl,--wrap={name}" for name in names)]
    # The probe again: silent now, or the wraps do not do what they are for.
    compile_alone(HERE / "probe.rs", probe, flags)
    if text := run_program([probe])[1]:
        fail(f"std's locks are not understood in spite of their wraps:\n{text}")
    return flags


def run_program(command: list, limit: float = LONGEST) -> tuple[int, str]:
    """Its exit code, and what it said on stderr."""
    options = f"halt_on_error=1 exitcode={FOUND} history_size=4 {os.environ.get('TSAN_OPTIONS', '')}"
    try:
        ran = subprocess.run(
            command, env=os.environ | {"TSAN_OPTIONS": options}, capture_output=True, text=True, errors="replace", timeout=limit
        )
    except subprocess.TimeoutExpired:
        fail(f"{command[-1]} did not end within {limit:.0f} seconds")
    return ran.returncode, ran.stderr


def is_race(code: int, said: str) -> bool:
    return code == FOUND and "data race" in said


def show(text: str, started: float) -> None:
    print(f"  {time.monotonic() - started:5.1f} s  {text}", flush=True)


def mutants() -> dict[str, list[tuple[str, str, str]]]:
    """By name: which texts of which files become what."""
    text = (CRATE / "tests/mutants/list.rs").read_text()
    string = r'"((?:[^"\\]|\\.)*)"'
    unescape = lambda literal: re.sub(r"\\(.)", lambda m: {"n": "\n"}.get(m[1], m[1]), literal)
    found = {}
    for part in text.split("Mutant {")[2:]:
        name = re.search(rf"name:\s*{string}", part)
        edits = re.findall(rf"edit\(\s*{string},\s*{string},\s*{string},?\s*\)", part)
        found[name[1]] = [tuple(map(unescape, edit)) for edit in edits]
    return found


def thread(out: Path) -> None:
    flags = wrap_locks(out, ["-Zsanitizer=thread", "-Cunsafe-allow-abi-mismatch=sanitizer"])
    print("that the sanitizer sees a race at all:")
    started = time.monotonic()
    code, said = run_program([build(HERE / "Cargo.toml", out, flags, "--example", "race") / "examples/race"])
    if not is_race(code, said):
        fail(f"the thread sanitizer does not see a plain race: it ended with {code}\n{said}")
    show("a race made on purpose: found", started)

    print("the product's shared words and bytes:")
    program = build(HERE / "Cargo.toml", out, flags, "--bin", "scenarios") / "scenarios"
    scenarios = subprocess.run([program], check=True, capture_output=True, text=True).stdout.split()
    for scenario in scenarios:
        started = time.monotonic()
        code, said = run_program([program, scenario])
        if code != 0:
            fail(f"{scenario} ended with {code}\n{said}")
        show(f"{scenario}: no race", started)

    print("what is taken out, and what the sanitizer says then:")
    tree = out / "tree"
    shutil.rmtree(tree, ignore_errors=True)
    for folder in ("src", "sanitize"):
        shutil.copytree(CRATE / folder, tree / folder)
    known = mutants()
    for name, scenario in RACES.items():
        started = time.monotonic()
        if not known.get(name):
            fail(f"tests/mutants/list.rs has no mutant called '{name}'")
        before = {}
        for file, old, new in known[name]:
            path = tree / "src" / file
            text = path.read_text()
            before.setdefault(path, text)
            if (count := text.count(old)) != 1:
                fail(f"'{name}': {file} has the text to be replaced {count} times, not once")
            path.write_text(text.replace(old, new))
        changed = build(tree / "sanitize/Cargo.toml", out / "mutants", flags, "--bin", "scenarios") / "scenarios"
        code, said = run_program([changed, scenario])
        if not is_race(code, said):
            fail(f"'{name}' was not found: {scenario} ended with {code}\n{said}")
        show(f"{name}: {scenario}, {re.search('SUMMARY: ThreadSanitizer: (data race)', said)[1]}", started)
        for path, text in before.items():
            path.write_text(text)


def address(out: Path, arguments: list[str]) -> None:
    print("that the sanitizer sees a fault at all:")
    started = time.monotonic()
    program = build(HERE / "Cargo.toml", out / "alone", ["-Zsanitizer=address"], "--example", "overflow") / "examples/overflow"
    code, said = run_program([program])
    if code == 0 or "heap-buffer-overflow" not in said:
        fail(f"the address sanitizer does not see a read behind an allocation: it ended with {code}\n{said}")
    show("a read behind an allocation, made on purpose: found", started)
    command = ["cargo", "test", "--release", "--locked", "--no-fail-fast", "--config", HERE / "address.toml", "--target", host()]
    command += ["--target-dir", out, "--manifest-path", CRATE / "Cargo.toml"]
    # A segment that is cut short ends its worker by a signal, and a test waits for that.
    options = {"ASAN_OPTIONS": f"detect_stack_use_after_return=1:handle_sigbus=0:{os.environ.get('ASAN_OPTIONS', '')}"}
    environ = {key: value for key, value in os.environ.items() if key not in ("RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS")}
    command += [*(arguments or ["--lib", "--tests"]), "--", *(f"--skip={name}" for name in LIMITED)]
    code = subprocess.run(command, env=environ | options | {"RUSTC_BOOTSTRAP": "1"}).returncode
    if code != 0:
        fail(f"the tests under the address sanitizer ended with {code}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sanitizer", choices=["address", "thread"])
    parser.add_argument("--out", type=Path, required=True, help="build folder")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="for cargo test, instead of all tests (address)")
    options = parser.parse_args()
    out = options.out.resolve() / options.sanitizer
    out.mkdir(parents=True, exist_ok=True)
    if options.sanitizer == "thread":
        thread(out)
    else:
        address(out, options.arguments)


if __name__ == "__main__":
    main()
