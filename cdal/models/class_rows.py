"""Where the last layers of a network store what they know about each class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True)
class ClassRows:
    """How the rows of a tensor belong to classes: ``groups`` times ``before + C`` classes, with
    ``each`` rows per class.

    Attributes:
        groups: how often the classes are repeated, such as once per anchor of a detector.
        before: classes in a group that precede the project's own, such as background.
        each: rows per class, such as the four sides of its box.
    """

    groups: int = 1
    before: int = 0
    each: int = 1


def carry_over(old: Tensor, new: Tensor, rows: ClassRows, origins: Sequence[int | None]) -> None:
    """Copy the rows of known classes from one network's tensor to another's, in place.

    Args:
        old: the tensor of the old network.
        new: the same tensor of the new network; rows of a class without an origin are kept.
        rows: how the rows of both tensors belong to classes.
        origins: for each class of the new network, its index in the old one, or None.
    """
    known = old.view(rows.groups, -1, rows.each, *old.shape[1:])
    learnt = new.view(rows.groups, -1, rows.each, *new.shape[1:])
    learnt[:, : rows.before] = known[:, : rows.before]
    for index, origin in enumerate(origins):
        if origin is not None:
            learnt[:, rows.before + index] = known[:, rows.before + origin]


def class_origins(
    old: Sequence[str], new: Sequence[str], known_as: Mapping[str, Sequence[str]]
) -> list[int | None]:
    """For each new class, the index of the old class that it continues, or None.

    A class continues the old class of the same name, or else the first of its earlier names in
    ``known_as`` that is an old class and not a new one.
    """
    origins: list[int | None] = []
    for name in new:
        others = [other for other in known_as.get(name, ()) if other not in new]
        found = [known for known in (name, *others) if known in old]
        origins.append(old.index(found[0]) if found else None)
    return origins
