"""What others have written, in lines of a log: nobody begins one of their own by way of a path or a message."""

from __future__ import annotations


def quoted(text: object) -> str:
    """The text with whatever does not print, line breaks and terminals' escapes among it, as its Python escape."""
    told = str(text)
    if told.isprintable():
        return told
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in told)
