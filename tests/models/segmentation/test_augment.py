from __future__ import annotations

import pytest
import torch
from torch import Generator

from cdal.models.predictions import IGNORED
from cdal.models.segmentation import augment
from cdal.models.segmentation.augment import GREY, SCALE, random_windows


def draws(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def painted(count: int, size: int = 32) -> tuple[torch.Tensor, torch.Tensor]:
    """Masks with four classes in quarters, and images whose channels are 20 times the class."""
    mask = torch.zeros((size, size), dtype=torch.uint8)
    mask[: size // 2, size // 2 :] = 1
    mask[size // 2 :, : size // 2] = 2
    mask[size // 2 :, size // 2 :] = 3
    masks = mask.expand(count, -1, -1).contiguous()
    return (20 * masks)[:, None].expand(-1, 3, -1, -1).contiguous(), masks


class TestAugmentMasks:
    def test_image_and_mask_stay_aligned(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(augment, "recolour", lambda images, _: images)
        images, masks = augment.augment_masks(*painted(64), draws())
        assert images.shape == (64, 3, 32, 32)
        assert masks.shape == (64, 32, 32)
        assert images.dtype == torch.float32
        assert masks.dtype == torch.uint8
        expected = torch.where(masks == IGNORED, GREY, 20.0 * masks)
        # Between two quarters, and at the border, the image is interpolated and the mask is not.
        plain = (images[:, 0] - expected).abs() < 1e-3
        assert float(plain.float().mean()) > 0.85
        assert set(masks.flatten().tolist()) == {0, 1, 2, 3, IGNORED}
        whole = images[:, 0].sub(20 * masks).abs()[masks != IGNORED]
        assert float(whole.median()) < 1e-3

    def test_only_pixels_beyond_the_border_are_ignored(self) -> None:
        images, masks = painted(200)
        windows = random_windows(200, draws())
        _, changed = augment.augment_masks(images, masks, draws())
        seen = (changed != IGNORED).float().mean((1, 2))
        side = windows[:, 1, 1]
        assert bool((seen[side <= 1] == 1).all())
        # A reduced image covers 1 / side² of its area, up to rounding at the rim.
        smaller = side > 1
        assert torch.allclose(seen[smaller], side[smaller] ** -2, atol=0.05)

    def test_is_the_same_for_the_same_draws(self) -> None:
        first, second, other = (
            augment.augment_masks(*painted(4), draws(seed)) for seed in (0, 0, 1)
        )
        assert torch.equal(first[0], second[0])
        assert torch.equal(first[1], second[1])
        assert not torch.equal(first[1], other[1])

    def test_does_not_use_the_process_generator(self) -> None:
        before = torch.random.get_rng_state()
        augment.augment_masks(*painted(4), draws())
        assert torch.equal(before, torch.random.get_rng_state())

    def test_each_image_changes_independently(self) -> None:
        _, masks = augment.augment_masks(*painted(6), draws())
        assert len({mask.numpy().tobytes() for mask in masks}) == 6

    def test_ignored_pixels_stay_ignored(self) -> None:
        images, masks = painted(8)
        masks[:] = IGNORED
        _, changed = augment.augment_masks(images, masks, draws())
        assert bool((changed == IGNORED).all())


class TestRandomWindows:
    def test_lie_in_the_image_or_around_it(self) -> None:
        windows = random_windows(1000, draws())
        side = windows[:, 1, 1]
        assert torch.equal(windows[:, 0, 0].abs(), side)
        assert float(side.min()) >= 1 / SCALE
        assert float(side.max()) <= SCALE
        for middle in (windows[:, 0, 2], windows[:, 1, 2]):
            left, right = middle - side, middle + side
            inside = (left >= -1 - 1e-6) & (right <= 1 + 1e-6)
            around = (left <= -1 + 1e-6) & (right >= 1 - 1e-6)
            assert bool(torch.where(side <= 1, inside, around).all())
        assert bool((windows[:, 0, 1] == 0).all() and (windows[:, 1, 0] == 0).all())

    def test_half_are_flipped_and_half_are_larger(self) -> None:
        windows = random_windows(1000, draws())
        assert 0.45 < float((windows[:, 0, 0] < 0).float().mean()) < 0.55
        assert 0.45 < float((windows[:, 1, 1] < 1).float().mean()) < 0.55
