"""The files behind a worker: its manifest, and what that names. `molt_worker --reload` looks whether they change."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from .._find_worker import find_worker
from . import settings

DEFAULT = "molt_exports.json"
"""What a worker takes that is told of none, if it lies where the worker is started."""


def path() -> Path:
    """The manifest of the worker that the settings describe; it need not be there."""
    return Path(settings.read().EXPORTS or DEFAULT)


class Watch:
    """What has changed since the last look."""

    def __init__(self) -> None:
        self._seen: dict[Path, int] = {}
        self.changed()

    def changed(self) -> list[Path]:
        """The files that are new, other than before, or gone."""
        before, self._seen = self._seen, self._stamps()
        return sorted({path for path, _ in before.items() ^ self._seen.items()})

    def _stamps(self) -> dict[Path, int]:
        manifest = path()
        try:
            files = [manifest, *_named(manifest)]
        except (OSError, ValueError, TypeError, AttributeError):  # it is being written, or wrong: that is one change
            files = [manifest, *self._seen]
        stamps = {}
        for file in files:
            with suppress(OSError):  # gone between the two looks
                stamps[file] = file.stat().st_mtime_ns
        return stamps


def _named(manifest: Path) -> Iterator[Path]:
    """The libraries and tables of a manifest, where the worker looks for them; of a folder, the files in it."""
    read = json.loads(manifest.read_bytes())
    folders = [manifest.parent]
    with suppress(FileNotFoundError):
        folders.append(find_worker().parent)
    for export in read.get("exports", ()):
        if library := export.get("library"):
            yield from (folder / library for folder in folders)
    for table in read.get("tables", {}).values():
        if source := table.get("path"):
            found = manifest.parent / source
            yield from found.rglob("*") if found.is_dir() else [found]
