"""Which database the report's baseline asks."""

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import dj_database_url

#: Where the report's tables lie in a PostgreSQL that nobody has named for them: tables of others are not touched.
SCHEMA = "molt_demo"
#: The database that every server has.
DATABASE = "postgres"
ANSWERS_WITHIN = 2  # seconds


def report_database(file: Path) -> dict[str, Any]:
    """What DEMO_DATABASE_URL names; else the PostgreSQL of the standard PG* variables, where one answers; else SQLite."""
    if "DEMO_DATABASE_URL" not in os.environ and _postgresql_answers():
        # libpq reads the other variables by itself.
        return {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": os.environ.get("PGDATABASE", DATABASE),
            "OPTIONS": {"options": f"-c search_path={SCHEMA}"},
            "CONN_MAX_AGE": None,
        }
    return dj_database_url.config("DEMO_DATABASE_URL", default=f"sqlite:///{file}", conn_max_age=None)


def _postgresql_answers() -> bool:
    named = any(variable in os.environ for variable in ("PGHOST", "PGHOSTADDR", "PGPORT", "PGDATABASE"))
    if not named or find_spec("psycopg") is None:
        return False
    import psycopg

    try:
        psycopg.connect(dbname=os.environ.get("PGDATABASE", DATABASE), connect_timeout=ANSWERS_WITHIN).close()
    except psycopg.Error:
        return False
    return True
