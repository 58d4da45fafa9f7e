"""Serves one echo: `python -m bench.runner.echo NAME PLACE`."""

import sys
from pathlib import Path

from . import load

load(sys.argv[1]).serve(Path(sys.argv[2]))
