"""What the two kinds of `Choices` share: truths about a whole image, and their region."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor

from cdal.backend.annotations.control import Control
from cdal.backend.annotations.format import Region


class WholeImage(ABC):
    """A truth that is the same at every size of its image."""

    __slots__ = ()

    @abstractmethod
    def target(self, height: int, width: int) -> Tensor:
        """What is learnt, whatever the size."""

    def unseen(self, height: int, width: int) -> int:  # noqa: ARG002
        """A class has no size, so nothing is too small."""
        return 0

    def fit(self, height: int, width: int) -> tuple[Tensor, tuple[str, ...]]:
        """The target; nothing is left out."""
        return self.target(height, width), ()


def choices_region(control: Control, labels: Sequence[str], score: float) -> Region:
    """The region in which an image has these labels.

    Args:
        control: the `Choices`.
        labels: what is chosen.
        score: the confidence, which is rounded.
    """
    return {
        "from_name": control.from_name,
        "to_name": control.to_name,
        "type": "choices",
        "value": {"choices": list(labels)},
        "score": round(score, 4),
    }
