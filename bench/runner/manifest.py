"""The repository's manifest with other settings for the order summary."""

import json
import shutil
import tempfile
from functools import partial
from pathlib import Path

from .owned import Owned
from .paths import EXPORTS

ENTRY = "order_summary"


def changed(owned: Owned, **fields: object) -> Path:
    """A copy in which the order summary has these fields; it goes with the run."""
    folder = owned.start(
        lambda: Path(tempfile.mkdtemp(prefix="molt-bench-")), partial(shutil.rmtree, ignore_errors=True)
    )
    manifest = json.loads(EXPORTS.read_text())
    # Files are looked for beside the manifest.
    for table in manifest["tables"].values():
        if "path" in table:
            table["path"] = str(EXPORTS.parent / table["path"])
    (entry,) = (entry for entry in manifest["exports"] if entry["name"] == ENTRY)
    entry.update(fields)
    path = folder / EXPORTS.name
    path.write_text(json.dumps(manifest))
    return path
