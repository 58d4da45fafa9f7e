"""The wheel, installed where neither Rust nor this repository is: client and worker come with it."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path

from molt_accel._find_worker import find_worker

BUILD = Path(__file__).resolve().parents[1] / "build_wheel.py"
SCRIPT = """
import molt_accel
from molt_accel._find_worker import find_worker
print(find_worker())
with molt_accel.spawn(arena="16MiB", args=["--threads", "1"]) as client:
    print(client.call("compute", {"values": [1, 2]})["sum"])
"""


def test_an_empty_environment_gets_client_worker_and_tool(tmp_path: Path) -> None:
    command = [sys.executable, str(BUILD), "--programs", str(find_worker().parent), "--out", str(tmp_path / "dist")]
    built = subprocess.run(command, capture_output=True, text=True, timeout=540)
    assert built.returncode == 0, built.stderr
    print(built.stdout)
    (wheel,) = (tmp_path / "dist").glob("molt_accel-*.whl")
    assert str(wheel) in built.stdout

    venv.create(tmp_path / "empty", with_pip=True)
    python = tmp_path / "empty" / "bin" / "python"
    bare = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)} | {
        name: value for name, value in os.environ.items() if name.startswith(("PIP_", "XDG_", "SSL_"))
    }
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", str(wheel)]
    subprocess.run(install, env=bare, check=True, timeout=300)
    ran = subprocess.run([python, "-c", SCRIPT], env=bare, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert ran.stdout.splitlines() == [str(python.parent / "molt_worker"), "3.0"], ran.stderr
    tool = subprocess.run([python.parent / "molt-shm-stat", "--version"], env=bare, capture_output=True, timeout=60)
    assert tool.returncode == 0


def test_without_the_programs_it_says_what_to_do(tmp_path: Path) -> None:
    command = [sys.executable, str(BUILD), "--programs", str(tmp_path)]
    built = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert built.returncode == 1 and built.stderr.strip().endswith("hint: make build")
