"""Load measurements of molt: the demo, the benchmark run, and the micro-measurements. `python -m bench --help`."""
