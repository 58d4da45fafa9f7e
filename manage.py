#!/usr/bin/env python
"""For `python manage.py runserver` in the repository's root: hands over to django_app/manage.py."""

import runpy
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parent / "django_app"

if __name__ == "__main__":
    sys.path.insert(0, str(PROJECT))
    runpy.run_path(str(PROJECT / "manage.py"), run_name="__main__")
