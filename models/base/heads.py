"""Heads: what a network learns beside its classes to part objects that touch, one more channel of its output each.

A network with heads is built with as many more outputs: the logits of the classes come first, then the heads in the
order of :data:`HEADS`. The value of a head is its channel limited to 0 to 1, without softmax.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    from torch import Tensor

Head = Literal["distance", "boundary"]

HEADS: tuple[Head, ...] = get_args(Head)


def in_order(heads: Iterable[str]) -> tuple[Head, ...]:
    """Return heads in the order of their channels.

    Raises
    ------
    ValueError
        If one is unknown or named twice.
    """
    given = list(heads)
    if unknown := [head for head in given if head not in HEADS]:
        raise ValueError(f"unknown head {unknown[0]!r}; available: {', '.join(HEADS)}")
    if len(set(given)) < len(given):
        raise ValueError(f"heads must differ, got {', '.join(given)}")
    return tuple(head for head in HEADS if head in given)


def values_of(channels: Tensor) -> Tensor:
    """Return the values of heads, in 0 to 1, from their channels of any shape."""
    return channels.clamp(0, 1)
