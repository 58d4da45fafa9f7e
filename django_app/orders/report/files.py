"""Where the report's tables lie, and how a file of them appears."""

import os
from pathlib import Path

from django.conf import settings

from orders.errors import DataMissing

#: The database's name in settings.DATABASES.
DATABASE = "report"


def customers_path() -> Path:
    """The customers' file."""
    return Path(settings.REPORT_DATA) / "customers.parquet"


def lines_path() -> Path:
    """The order lines' file; it is there once it is whole, and after the customers'."""
    return Path(settings.REPORT_DATA) / "order_lines.parquet"


def database_path() -> Path:
    """The SQLite database; it is there once it is whole."""
    return Path(settings.REPORT_DATA) / "report.sqlite3"


def need(path: Path) -> Path:
    """The path of a file that was made. Raises DataMissing."""
    if not path.exists():
        raise DataMissing("the report's order lines are not there; hint: manage.py report_data makes them")
    return path


class Whole:
    """A file that gets its name when it is complete."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.half = path.with_name(f".{path.name}.{os.getpid()}")

    def __enter__(self) -> Path:
        self.half.unlink(missing_ok=True)
        return self.half

    def __exit__(self, kind: type | None, *reason: object) -> None:
        if kind is None:
            self.half.replace(self.path)
        else:
            self.half.unlink(missing_ok=True)
