"""Why an image could not be had."""

from __future__ import annotations

from collections.abc import Mapping


class ImageError(Exception):
    """An image cannot be fetched or decoded; the round goes on without it.

    Attributes:
        reason: One plain sentence for people. It never holds a secret (an address's query may be
            a signature, so only host names are named) nor a path of this machine.
        passes: Whether it may be had later, such as from a host that is away.
    """

    def __init__(self, reason: str, passes: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.passes = passes


class ImagesAwayError(Exception):
    """So many images cannot be had for now that it is better to wait than to go on without."""

    def __init__(self, problems: Mapping[int, ImageError], asked: int) -> None:
        task_id, first = next(iter(problems.items()))
        super().__init__(
            f"{len(problems)} of {asked} images cannot be had for now; task {task_id}: "
            f"{first.reason}"
        )
