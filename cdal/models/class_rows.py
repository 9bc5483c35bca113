"""Where a network's last layers have what they know of each class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True)
class ClassRows:
    """How dimension 0 of a tensor is made of classes: ``groups`` times ``before + C``, each of
    which has ``each`` rows.

    Attributes:
        groups: how often the classes are repeated, such as once an anchor of a detector.
        before: classes of a group that come before the project's own, such as background.
        each: rows that belong to one class together, such as the four sides of its box.
    """

    groups: int = 1
    before: int = 0
    each: int = 1


def carry_over(old: Tensor, new: Tensor, rows: ClassRows, origins: Sequence[int | None]) -> None:
    """Copy what one tensor knows of classes into another one, in place.

    Args:
        old: of the network that knows.
        new: of the network that is to know; rows of a class without origin stay as they are.
        rows: how both are made of classes.
        origins: for each class of the new network its index in the old one, or None.
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
    """For each new class the index of the old one that it was, None where it was none."""
    origins: list[int | None] = []
    for name in new:
        others = [other for other in known_as.get(name, ()) if other not in new]
        found = [known for known in (name, *others) if known in old]
        origins.append(old.index(found[0]) if found else None)
    return origins
