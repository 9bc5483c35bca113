"""Why an image could not be had."""

from __future__ import annotations


class ImageError(Exception):
    """An image cannot be fetched or decoded; the round goes on without it.

    Attributes:
        reason: One plain sentence for people. It never holds a secret (an address's query may be
            a signature, so only host names are named) nor a path of this machine.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
