"""Label Studio's run-length encoding, compared with the SDK's decoder."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from label_studio_sdk.converter.brush import decode_rle, encode_rle, mask2rle

from cdal.backend.annotations.rle import CHANNELS, decode_mask, has_bytes, values_in

ALPHAS = st.sampled_from([0, 1, 49, 50, 100, 127, 128, 255])
SIZES = st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(CHANNELS))


@given(arrays(np.uint8, SIZES, elements=ALPHAS), st.integers(1, 40))
@settings(max_examples=100)
def test_it_reads_what_the_sdk_reads(
    values: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], times: int
) -> None:
    values = values.repeat(times, axis=0)
    rle, size = bytes(encode_rle(values.ravel())), (len(values), values.shape[1])
    assert has_bytes(rle)
    assert values_in(rle) == values.size
    alpha = decode_rle(rle).reshape(values.shape)[:, :, -1]
    mask = decode_mask(rle, size)
    if mask is None:
        assert not alpha.any()
    else:
        assert mask.tolist() == (alpha >= (int(alpha.max()) + 1) // 2).astype(int).tolist()


def test_an_encoding_that_is_too_short_is_refused() -> None:
    noise = np.random.default_rng(0).integers(0, 2, (20, 20)).astype(np.uint8) * 255
    rle = bytes(mask2rle(noise))
    for length in (7, 30, len(rle) - 1):
        with pytest.raises(ValueError, match=r"short|base"):
            decode_mask(rle[:length], (20, 20))


def test_runs_that_go_on_beyond_the_claimed_size_are_cut_off() -> None:
    """As on Label Studio's page."""
    rle = bytes(mask2rle(np.full((4, 4), 255, np.uint8)))
    shorter = (2 * 4 * CHANNELS).to_bytes(4) + rle[4:]
    mask = decode_mask(shorter, (2, 4))
    assert mask is not None
    assert mask.tolist() == [[1] * 4] * 2


def test_no_more_memory_is_taken_than_a_byte_per_pixel() -> None:
    """A few bytes may claim hundreds of millions of values."""
    side = 2000
    rle = bytes(mask2rle(np.full((side, side), 255, np.uint8)))
    assert len(rle) < side**2 / 1000
    tracemalloc.start()
    decode_mask(rle, (side, side))
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 1.5 * side**2
