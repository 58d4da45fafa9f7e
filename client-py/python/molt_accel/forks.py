"""Fork: a child gets sessions of its own, and never frees what belongs to its parent.

Every object that holds something of the native library remembers the generation that it was made in, and gives nothing
back when the process has since become another one.
"""

from __future__ import annotations

import os
import weakref

TYPE_CHECKING = False  # see molt_accel/__init__.py
if TYPE_CHECKING:
    from typing import Protocol

    class Forkable(Protocol):
        def _forked(self) -> None:
            """Runs in the child: forget the parent's session."""


generation = 0
"""How many forks lie between this process and the one that imported molt_accel."""

_members: weakref.WeakSet[Forkable] = weakref.WeakSet()


def join(member: Forkable) -> None:
    """Has `member._forked()` called in every child forked from now on, for as long as `member` lives."""
    _members.add(member)


def _in_child() -> None:
    global generation
    generation += 1
    for member in list(_members):
        member._forked()


os.register_at_fork(after_in_child=_in_child)
