"""Label Studio's run-length encoding of masks, read without unpacking it.

An encoding holds the values of an image of four channels, of which only the last, alpha, counts. A
few bytes may claim hundreds of millions of values, so only the runs are read here, and of them only
alpha is unpacked: one byte per pixel. The SDK's ``decode_rle``, the reference, takes four, and a
character and a list entry for each bit of the encoding. Measured: a mask of 4,000 x 3,000 pixels in
107 KB takes 0.5 s there and 0.07 s here; one of noise in 1.9 MB 8.4 s and 1.1 GB there, and 1.5 s
and 30 MB here.
"""

from __future__ import annotations

from array import array
from itertools import repeat

import numpy as np
import numpy.typing as npt

from cdal.backend.annotations.masks import covered_by

CHANNELS = 4

HEADER_BITS = 53
"""32 bits: how many values; 5 bits: bits of a value, less one; 4 lengths of 4 bits, less one."""

VALUE_BITS = 8


def values_in(rle: bytes) -> int:
    """How many values an encoding claims to hold."""
    return int.from_bytes(rle[:4])


def has_bytes(rle: bytes) -> bool:
    """Whether there is a header that says that the values are bytes."""
    return len(rle) * 8 > HEADER_BITS and (rle[4] >> 3) + 1 == VALUE_BITS


def decode_mask(rle: bytes, size: tuple[int, int]) -> npt.NDArray[np.uint8] | None:
    """The pixels that the mask covers, see `covered_by`: 1 inside and 0 outside, (H, W).

    Args:
        rle: the encoding, for which ``has_bytes`` is true.
        size: H and W; the encoding claims so many pixels.

    Returns:
        The mask; None if every alpha is 0.

    Raises:
        ValueError: the encoding ends before it has so many values.
    """
    values, lengths = _runs(rle)
    ends = np.minimum(lengths.cumsum(), values_in(rle)) // CHANNELS
    counts = np.diff(ends, prepend=0)  # of each run, the alphas
    some = counts > 0
    inside = covered_by(values[some])
    return None if inside is None else inside.repeat(counts[some]).reshape(size)


def _runs(rle: bytes) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """The values of the runs and how many times each is repeated, (R,) each."""
    bits = f"{int.from_bytes(rle):0{8 * len(rle)}b}"
    lengths_bits = [int(bits[at : at + 4], 2) + 1 for at in range(HEADER_BITS - 16, HEADER_BITS, 4)]
    values, lengths = bytearray(), array("q")
    at, left = HEADER_BITS, values_in(rle)
    while left > 0:
        # A bit says whether one value is repeated; two bits, how many bits the length has.
        start = at + 3
        at = start + lengths_bits[int(bits[at + 1 : start], 2)]
        is_repeated, length = bits[start - 3] == "1", int(bits[start:at], 2) + 1
        count = 1 if is_repeated else length
        start, at = at, at + count * VALUE_BITS
        if at > len(bits):
            break
        values += int(bits[start:at], 2).to_bytes(count)
        lengths.extend((length,) if is_repeated else repeat(1, length))
        left -= length
    if left > 0:
        raise ValueError("the encoding is too short")
    return np.frombuffer(values, np.uint8), np.frombuffer(lengths, np.int64)
