"""The demo's settings with other URLs."""

from demo.settings import *  # noqa: F403

ROOT_URLCONF = "bench.peers.site.urls"
