"""Builds a wheel that contains the client, the worker and the stat tool: `pip install` of it needs no Rust.

    python client-py/build_wheel.py --programs target/release --out dist

The client's wheel is built as always; the programs are then added as its scripts, which pip puts onto the PATH of the
environment, where `molt_accel` looks for them first.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

PROGRAMS = ("molt_worker", "molt-shm-stat")


def build(programs: Path, out: Path) -> Path:
    """The wheel's path. FileNotFoundError: a program is not there."""
    for name in PROGRAMS:
        if not (programs / name).is_file():
            raise FileNotFoundError(f"{programs / name} is not there. hint: make build")
    with tempfile.TemporaryDirectory() as folder:
        plain, unpacked = Path(folder, "plain"), Path(folder, "unpacked")
        run = [sys.executable, "-m"]
        pip = ["pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-deps", "--wheel-dir", str(plain)]
        subprocess.run([*run, *pip, str(Path(__file__).parent)], check=True)
        (wheel,) = plain.glob("*.whl")
        subprocess.run([*run, "wheel", "unpack", "--dest", str(unpacked), str(wheel)], check=True, stdout=sys.stderr)
        (tree,) = unpacked.iterdir()
        scripts = tree / f"{tree.name}.data" / "scripts"
        scripts.mkdir(parents=True)
        for name in PROGRAMS:
            shutil.copy2(programs / name, scripts / name)
        out.mkdir(parents=True, exist_ok=True)
        subprocess.run([*run, "wheel", "pack", "--dest-dir", str(out), str(tree)], check=True, stdout=sys.stderr)
    return out / wheel.name


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--programs", type=Path, default=Path("target/release"), help="where the programs are")
    parser.add_argument("--out", type=Path, default=Path("dist"), help="where the wheel goes")
    options = parser.parse_args()
    try:
        wheel = build(options.programs, options.out)
    except FileNotFoundError as reason:
        sys.exit(str(reason))
    print(f"{wheel}: {wheel.stat().st_size / 1e6:.1f} MB")
    for name in PROGRAMS:
        print(f"  {name}: {(options.programs / name).stat().st_size / 1e6:.1f} MB unpacked")


if __name__ == "__main__":
    main()
