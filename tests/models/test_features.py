from __future__ import annotations

import torch

from cdal.models.features import ImageFeatures, KeptFeatures, image_key


def features(number: int, values: int = 100) -> ImageFeatures:
    return ImageFeatures((torch.full((values,), number, dtype=torch.half),), (8, 8))


def test_what_was_not_used_for_longest_goes_first() -> None:
    kept = KeptFeatures(limit=600)  # bytes: three times 100 values in half precision
    for number in range(3):
        kept.put(bytes([number]), features(number))
    assert kept.get(b"\x00") is not None
    kept.put(b"\x03", features(3))
    assert kept.get(b"\x01") is None
    found = kept.get(b"\x00")
    assert found is not None
    assert int(found.maps[0][0]) == 0
    assert len(kept) == 3


def test_the_same_key_counts_once() -> None:
    kept = KeptFeatures(limit=600)
    for _ in range(10):
        kept.put(b"a", features(1))
    kept.put(b"b", features(2))
    kept.put(b"c", features(3))
    assert len(kept) == 3


def test_what_is_larger_than_the_limit_is_not_kept() -> None:
    kept = KeptFeatures(limit=600)
    kept.put(b"a", features(1))
    kept.put(b"b", features(2, values=301))
    assert kept.get(b"b") is None
    assert kept.get(b"a") is not None


def test_keys_tell_images_sizes_and_uses_apart() -> None:
    image = torch.zeros((3, 4, 4), dtype=torch.uint8)
    other = image.clone()
    other[0, 0, 0] = 1
    keys = {
        image_key(image, "segmentation"),
        image_key(image, "classification"),
        image_key(other, "segmentation"),
        image_key(image.view(3, 2, 8), "segmentation"),
    }
    assert len(keys) == 4
    assert image_key(image, "segmentation") == image_key(image.clone(), "segmentation")
