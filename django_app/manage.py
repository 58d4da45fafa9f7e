#!/usr/bin/env python
"""Django's command line for the demo: `python manage.py runserver`."""

import os
import sys

from django.core.management import execute_from_command_line


def main() -> None:
    """Runs the command named on the command line under the demo's settings."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "demo.settings")
    execute_from_command_line(sys.argv)


if __name__ == "__main__":
    main()
