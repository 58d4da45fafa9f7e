"""Settings of the demo: a JSON API with token authentication, a database for one endpoint, a dict for molt_accel."""

import os
from hashlib import sha256
from pathlib import Path

from demo.database import report_database

BASE = Path(__file__).resolve().parents[1]

DEBUG = os.environ.get("DJANGO_DEBUG") == "1"
ALLOWED_HOSTS = ["localhost", "127.0.0.1", "[::1]", *os.environ.get("DJANGO_ALLOWED_HOSTS", "").split()]

# Nothing here keeps sessions, signs cookies or renders HTML, so there is no SECRET_KEY and no default database.
INSTALLED_APPS = ["molt_accel.django", "orders"]
MIDDLEWARE = ["demo.length.content_length", "demo.auth.token_required"]
ROOT_URLCONF = "demo.urls"
WSGI_APPLICATION = "demo.wsgi.application"
ASGI_APPLICATION = "demo.asgi.application"
USE_TZ = True
TIME_ZONE = "UTC"
USE_I18N = False

# Who may call, by name: the SHA-256 of each one's token, so that a dump of the settings gives no token away.
# The default is for a laptop; a deployment sets DEMO_API_TOKEN.
API_TOKENS = {"demo": sha256(os.environ.get("DEMO_API_TOKEN", "demo-token").encode()).digest()}

# The largest request body of every endpoint. Django's own limit (2.5 MB by default) holds for views that read
# request.body; offloaded views read the stream straight into shared memory and go by molt_accel's limit.
BODY_LIMIT = 16 * 1024 * 1024
DATA_UPLOAD_MAX_MEMORY_SIZE = BODY_LIMIT

REGIONS_CSV = BASE / "data" / "regions.csv"

# The report: its order lines, made by `manage.py report_data`, in Parquet files and in the database of the ORM.
REPORT_LINES = int(os.environ.get("DEMO_REPORT_LINES", 5_000_000))
REPORT_DATA = Path(os.environ.get("DEMO_REPORT_DATA", BASE / "data" / f"report-{REPORT_LINES}"))
DATABASES = {
    "default": {},  # there is none
    "report": report_database(REPORT_DATA / "report.sqlite3"),
}

MOLT = {
    "SHM": os.environ.get("MOLT_SHM", "/molt0"),
    "SOCKET": os.environ.get("MOLT_SOCKET"),
    "EXPORTS": os.environ.get("MOLT_EXPORTS", BASE.parent / "molt_exports.json"),
    "MAX_BODY": BODY_LIMIT,
    "ERROR_RESPONSE": "orders.answers.molt_error",
    "ADMISSION": {"paths": ["/aoffload/"]},
}

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"stderr": {"class": "logging.StreamHandler"}},
    "root": {"handlers": ["stderr"], "level": "WARNING"},
}
