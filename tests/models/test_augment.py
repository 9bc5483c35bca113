from __future__ import annotations

import torch
from torch import Generator

from cdal.models.augment import SHIFT, augment, recolour, shift_and_flip


def test_each_image_is_shifted_and_flipped_independently() -> None:
    size, count = 16, 200
    columns = torch.arange(size, dtype=torch.uint8).expand(3, size, size)
    moved = shift_and_flip(columns.expand(count, -1, -1, -1), Generator().manual_seed(0))
    assert moved.shape == (count, 3, size, size)
    assert moved.dtype == torch.uint8
    reach = round(size * SHIFT)
    outcomes = set()
    for image in moved:
        row = image[0, 0].int()
        assert bool((image == image[0, 0]).all())  # columns stay columns, channels stay equal
        flipped = bool(row[8] < row[7])
        upright = row.flip(0) if flipped else row
        shift = int(upright[8]) - 8
        outcomes.add((shift, flipped))
        wanted = [abs(i + shift) for i in range(size)]
        assert upright.tolist() == [i if i < size else 2 * (size - 1) - i for i in wanted]
    assert outcomes == {(s, f) for s in range(-reach, reach + 1) for f in (False, True)}


def test_images_are_never_upside_down() -> None:
    rows = torch.arange(16, dtype=torch.uint8).view(16, 1).expand(64, 3, 16, 16)
    moved = shift_and_flip(rows, Generator().manual_seed(0))[:, 0, 4:12, 0].int()
    assert bool((moved.diff(dim=1) == 1).all())


def test_colours_change_slightly_and_stay_in_range() -> None:
    images = torch.randint(0, 256, (50, 3, 8, 8), generator=Generator().manual_seed(1)).float()
    changed = recolour(images, Generator().manual_seed(0))
    assert float(changed.min()) >= 0
    assert float(changed.max()) <= 255
    shift = (changed.mean((1, 2, 3)) / images.mean((1, 2, 3)) - 1).abs()
    assert 0.05 < float(shift.mean()) < 0.2


def test_grey_stays_grey() -> None:
    grey = torch.full((4, 3, 8, 8), 100.0)
    changed = recolour(grey, Generator().manual_seed(0))
    assert torch.allclose(changed[:, 0], changed[:, 2], atol=1e-3)


def test_depends_on_the_generator_and_not_on_the_process() -> None:
    images = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    before = torch.get_rng_state()
    first = augment(images, Generator().manual_seed(5))
    second = augment(images, Generator().manual_seed(5))
    other = augment(images, Generator().manual_seed(6))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)
