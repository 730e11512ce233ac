"""What a text has that the one before it has not: how a conversation is kept without being repeated in every request.

A request of an agent repeats all that was said before, adds something, and often ends as the one before it did. So of
two such texts their common beginning and their common end are kept as two numbers, and what is between them as text.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple


class Difference(NamedTuple):
    """One text, told by another.

    Attributes:
        keep: how many characters of the other one it begins with.
        text: what is between its beginning and its end.
        tail: how many characters of the other one it ends with.
    """

    keep: int
    text: str
    tail: int = 0


def difference(previous: str, text: str) -> Difference:
    """Tell a text by the one before it. The inverse of `restore`; takes time with the length of both.

    Args:
        previous: the text that whoever restores this one has.
        text: the text to be told.

    >>> difference("Dear Ann, hello. Yours, Bo", "Dear Ann, hello again. Yours, Bo")
    Difference(keep=15, text=' again', tail=11)
    """
    most = min(len(previous), len(text))
    keep = _longest(most, lambda low, high: previous[low:high] == text[low:high])
    ends, end = len(previous), len(text)
    tail = _longest(most - keep, lambda low, high: previous[ends - high : ends - low] == text[end - high : end - low])
    return Difference(keep, text[keep : end - tail], tail)


def restore(previous: str, keep: int, text: str, tail: int = 0) -> str:
    """Put a text together that was told by another. The inverse of `difference`.

    >>> restore("Dear Ann, hello. Yours, Bo", 15, " again", 11)
    'Dear Ann, hello again. Yours, Bo'
    """
    return f"{previous[:keep]}{text}{previous[len(previous) - tail :]}"


def _longest(most: int, equal: Callable[[int, int], bool]) -> int:
    """How far two texts are equal, at most so far, where ``equal`` compares them between two places."""
    low, high = 0, most
    while low < high:  # halves are compared as wholes: texts are long, and Python is slow by the character
        middle = (low + high + 1) // 2
        if equal(low, middle):
            low = middle
        else:
            high = middle - 1
    return low
