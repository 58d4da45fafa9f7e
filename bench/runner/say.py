"""How a part tells what it does while it does it; `progress.py` shows it."""

from collections.abc import Callable

Say = Callable[[str], None]
"""Takes it, in a few words."""


def quiet(text: str) -> None:
    """Nobody watches."""
