"""A PostgreSQL server of the tests' own, on a socket in a folder, where its programs are installed."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pwd import getpwnam
from tempfile import TemporaryDirectory

FOLDERS = "/usr/lib/postgresql/*/bin"


def missing() -> str | None:
    """Why no server can be started here, if so."""
    if _programs() is None:
        return f"needs initdb and pg_ctl, on PATH or in {FOLDERS}"
    if os.geteuid() == 0 and _user() is None:
        return "PostgreSQL does not run as root, and there is no user postgres or nobody"
    return None


def _programs() -> Path | None:
    folders = sorted(Path("/").glob(FOLDERS.lstrip("/")), reverse=True)
    on_path = shutil.which("initdb")
    folders = [*folders, *([Path(on_path).parent] if on_path else [])]
    whole = [folder for folder in folders if (folder / "initdb").exists() and (folder / "pg_ctl").exists()]
    return whole[0] if whole else None


def _user() -> str | None:
    for name in ("postgres", "nobody"):
        try:
            return getpwnam(name).pw_name
        except KeyError:
            continue
    return None


@contextmanager
def server() -> Iterator[dict[str, str]]:
    """A running server; gives the variables that lead libpq to it."""
    programs = _programs()
    # A socket's path is short, and the server's user must be able to reach it.
    with TemporaryDirectory(prefix="molt-pg-", dir="/tmp") as folder:
        user = _user() if os.geteuid() == 0 else None
        if user:
            os.chown(folder, getpwnam(user).pw_uid, -1)

        def run(program: str, *arguments: str) -> None:
            environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
            command = [str(programs / program), "-D", f"{folder}/data", *arguments]
            done = subprocess.run(
                command, capture_output=True, text=True, cwd=folder, user=user, env=environment, timeout=60
            )
            assert done.returncode == 0, f"{program}: {done.stdout}{done.stderr}"

        run("initdb", "-U", "demo", "-A", "trust", "-E", "UTF8", "--no-sync")
        alone = f"-c listen_addresses='' -c unix_socket_directories={folder} -c fsync=off"
        run("pg_ctl", "start", "-w", "-l", f"{folder}/log", "-o", alone)
        try:
            yield {"PGHOST": folder, "PGDATABASE": "postgres", "PGUSER": "demo"}
        finally:
            run("pg_ctl", "stop", "-w", "-m", "immediate")
