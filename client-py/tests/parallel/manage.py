"""A project whose tests run in several processes (test_parallel_tests.py); the environment says how those are
started."""

from __future__ import annotations

import multiprocessing
import os
import sys

if __name__ == "__main__":
    from django.core.management import execute_from_command_line

    multiprocessing.set_start_method(os.environ["START_METHOD"])
    os.environ["DJANGO_SETTINGS_MODULE"] = "site_parallel"
    execute_from_command_line(sys.argv)
