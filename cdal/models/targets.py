"""What a network is to say of an image, as one tensor.

- Classification: the index of its class, () int64.
- Segmentation: the index of each pixel's class, (H, W) uint8; ``IGNORED`` pixels don't count.
- Detection: a row for each of K boxes, (K, 5) float32: left, top, right and bottom in pixels, and
  the index of its class. An image without boxes, K = 0, shows what is none of the classes.
"""

from __future__ import annotations

IGNORED = 255
"""Stands for the class of a pixel of which nothing is known."""

BACKGROUND = "(background)"
"""The class of a segmentation network that stands for all that is none of the project's labels."""
