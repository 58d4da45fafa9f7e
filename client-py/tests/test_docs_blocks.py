"""Every fenced block of docs/ is run by a test, read by one here, or listed with the reason why neither can be."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml
from test_docs import fences, flags_of

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"


class Block(NamedTuple):
    """One fenced block."""

    page: str
    kind: str
    text: str


BLOCKS = [
    Block(page.name, found[1], found[2])
    for page in sorted(DOCS.glob("*.md"))
    for found in re.finditer(r"^```(\w*)\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)
]

RUN: Mapping[str, tuple[str, set[str]]] = {
    "quickstart.md": ("test_quickstart.py follows it to the letter", {"console", "python", "json"}),
    "tables.md": ("test_docs_tables.py goes from top to bottom", {"python", "pycon", "json"}),
    "django.md": ("test_docs.py executes each, and asks what it defines", {"python"}),
    "deployment.md": ("test_docs.py parses each and holds it against the programs' flags", {"ini", "yaml"}),
}
"""Pages that another test goes through block by block, and the kinds that it takes."""
LISTED: Mapping[tuple[str, str], str] = {
    ("watch.md", "text"): "a picture of a terminal; ipc-shm/stat/src/watch/view/tests.rs draws it and compares",
    ("deployment.md", "docker run --shm-size 1g shop\n"): "needs Docker, which the tests do without",
}
"""By page, and kind or whole text."""


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: f"{block.page}: {block.text.splitlines()[0][:40]}")
def test_a_block_is_run_read_or_listed(block: Block) -> None:
    if block.kind in RUN.get(block.page, ("", set()))[1]:
        return
    if (block.page, block.kind) in LISTED or (block.page, block.text) in LISTED:
        return
    assert block.kind in READERS, f"nobody runs this block of {block.page}, and nothing says why:\n{block.text}"
    READERS[block.kind](block)


def test_the_list_has_nothing_that_is_not_there() -> None:
    for page, kinds in ((page, kinds) for page, (_, kinds) in RUN.items()):
        assert kinds == {block.kind for block in BLOCKS if block.page == page} & kinds, page
    for page, which in LISTED:
        assert [block for block in BLOCKS if block.page == page and which in (block.kind, block.text)], (page, which)


# -- what a reader of a shell's block makes sure of ----------------------------------------------------------------


def read_shell(block: Block) -> None:
    """It is a shell's; every command in it is a program, a target, a page's function or a command that there is."""
    subprocess.run(["bash", "-n"], input=block.text, text=True, check=True)
    text = re.sub(r" +# .*", "", block.text)
    functions = set(
        re.findall(r"^(\w+)\(\) \{", "".join(each.text for each in BLOCKS if each.page == block.page), re.M)
    )
    commands = _commands(text)
    assert commands, block.text
    for words in commands:
        _check_command(words, functions)


def _commands(text: str) -> list[list[str]]:
    """The simple commands: quoted text counts as one word, and is not looked into but for `$(...)`."""
    text = text.replace("\\\n", " ")
    inner = re.findall(r"\$\(([^()]*)\)", text)
    plain = re.sub(r"'[^']*'|\"[^\"]*\"", "QUOTED", text)
    parts = re.split(r"&&|\|\|?|;|&|\n|<\(|\)|\bdo\b|\bdone\b|\{|\}", "\n".join([plain, *inner]))
    words = [part.split() for part in parts]
    return [each for each in words if each and not each[0].endswith("(") and each[0] not in ("for", "in")]


def _check_command(words: list[str], functions: set[str]) -> None:
    program, *rest = words
    flags = {word for word in rest if word.startswith("--")}
    name = Path(program).name
    if name in ("molt_worker", "molt-shm-stat"):
        assert flags <= flags_of(name), words
    elif name == "granian":
        assert flags <= set(re.findall(r"--[\w-]+", _answer(sys.executable, "-m", "granian", "--help"))), words
        assert rest[-1] in ("shop.wsgi:application", "shop.asgi:application")
    elif program == "make":
        assert re.search(rf"^{rest[0]}:", (ROOT / "Makefile").read_text(), re.MULTILINE), words
    elif words[:2] == ["python", "manage.py"]:
        helped = _answer(sys.executable, "manage.py", words[2], "--help")
        assert flags <= set(re.findall(r"--[\w-]+", helped)), words
    elif words[:3] == ["python", "-m", "bench"]:
        assert "Usage:" in _answer(sys.executable, "-m", "bench", words[3], "--help")
    elif words[:2] == ["k6", "run"]:
        assert (ROOT / words[2]).is_file(), words
    elif words[:2] != ["k6", "version"]:
        builtin = subprocess.run(["bash", "-c", f"type -t {program}"], capture_output=True).returncode == 0
        assert program in functions or builtin or shutil.which(program), words


def _answer(*command: str) -> str:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60).stdout


# -- other kinds ---------------------------------------------------------------------------------------------------


def read_python(block: Block) -> None:
    """It shows lines of the demo's views: they stand there so."""
    views = (ROOT / "django_app" / "orders" / "views.py").read_text()
    shown = re.fullmatch(r"((?:@.*\n)+def \w+\(request)\): \.\.\.\n", block.text)
    assert shown is not None and f"{shown[1]}: HttpRequest)" in views


def read_dockerfile(block: Block) -> None:
    """Its instructions are Docker's, it copies what `make wheel` makes, and its user is the one of compose.yaml."""
    instructions = [line.split(maxsplit=1) for line in block.text.replace("\\\n", " ").splitlines()]
    assert [name for name, _ in instructions] == ["FROM", "COPY", "RUN", "COPY", "WORKDIR", "USER"]
    python = re.fullmatch(r"python:3\.(\d+)-slim", instructions[0][1])
    assert python is not None and int(python[1]) >= 11, "client-py/pyproject.toml requires it"
    assert instructions[1][1].split()[0] == "dist/molt_accel-*.whl"
    assert "--out dist" in (ROOT / "Makefile").read_text()
    uid = re.search(r"useradd --system --uid (\d+) (\w+)", instructions[2][1])
    assert uid is not None and instructions[5][1] == uid[2]
    (compose, pod) = (yaml.safe_load(text) for text in fences("deployment.md", "yaml"))
    assert {service["user"] for service in compose["services"].values()} == {uid[1]}
    assert str(pod["spec"]["securityContext"]["runAsUser"]) == uid[1]
    subprocess.run(["sh", "-n"], input=instructions[2][1], text=True, check=True)


READERS: Mapping[str, Callable[[Block], None]] = {
    "sh": read_shell,
    "console": read_shell,
    "python": read_python,
    "dockerfile": read_dockerfile,
}


@pytest.mark.parametrize(
    "text",
    [
        "molt-shm-stat /shop --wotch\n",
        "make nothing-of-that-name\n",
        "python manage.py molt_statos\n",
        "python manage.py molt_status --wotch\n",
        "k6 run bench/k6/no.js\n",
        "/srv/shop/venv/bin/granian --wirkers 4 shop.wsgi:application\n",
        "no-such-program x\n",
        "echo $(no-such-one)\n",
        "if true\n",
    ],
)
def test_a_reader_notices_what_is_not_there(text: str) -> None:
    with pytest.raises((AssertionError, subprocess.CalledProcessError)):
        read_shell(Block("x.md", "sh", text))
