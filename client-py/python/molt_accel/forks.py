"""Fork: a child gets sessions of its own, and never frees what belongs to its parent.

Every object that holds something of the native library remembers the generation that it was made in, and gives nothing
back when the process has since become another one. Tables and replies that the child inherits stay as they are for as long
as it lives, whatever the parent does with its own: before the fork the worker is asked to keep them.
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
_used = False
"""Whether there has been a client: without one the native library is not even loaded for a fork."""


def join(member: Forkable) -> None:
    """Has `member._forked()` called in every child forked from now on, for as long as `member` lives."""
    global _used
    _used = True
    _members.add(member)


def _before() -> None:
    if not _used:
        return
    from ._lib import Failure, lib

    failure = Failure()
    if lib.molt_fork_before(*failure.args):
        import warnings

        warnings.warn(
            f"{failure.error()} The child's inherited tables stay valid only while this process holds them.",
            RuntimeWarning,
            stacklevel=2,
        )


def _in_parent() -> None:
    if _used:
        from ._lib import lib

        lib.molt_fork_in_parent()


def _in_child() -> None:
    global generation
    generation += 1
    if not _used:
        return
    from ._lib import lib

    lib.molt_fork_in_child()
    for member in list(_members):
        member._forked()


os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)
