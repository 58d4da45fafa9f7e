"""In which order the sides have their turns: another one in every round, the same ones in every run."""

from collections.abc import Iterable
from random import Random
from typing import TypeVar

T = TypeVar("T")
SEED = 1


def order(sides: Iterable[T], number: int) -> list[T]:
    """The sides as they come in that round: who always follows the same neighbour inherits what that one left behind."""
    shuffled = list(sides)
    Random(f"{SEED} {number}").shuffle(shuffled)
    return shuffled
