"""molt in Django: `INSTALLED_APPS += ["molt_accel.django"]`, one dict `MOLT`, one line for each view worth it."""

from __future__ import annotations

from .clients import client
from .decorator import molt_offload
from .offload import aoffload, offload

__all__ = ["aoffload", "client", "molt_offload", "offload"]
