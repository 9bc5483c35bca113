"""Images that a head sees in tiles: where they lie, and that they become one map."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from cdal.models import (
    Detections,
    ModelError,
    Recipe,
    Segmentation,
    TaskNetwork,
    fit,
    load_network,
    make_network,
)
from cdal.models.backbone import DEFAULT_BACKBONE, Backbone, open_backbone
from cdal.models.dense_head import DenseHeadNetwork
from cdal.models.detection.boxes import MIN_SIDE
from cdal.models.features import ImageFeatures
from cdal.models.letterbox import GRID
from cdal.models.predictions import IGNORED
from cdal.models.segmentation.network import ROWS_AT_ONCE, enlarge, summed_cross_entropy
from cdal.models.tiling import LEAST_SIDE, MOST_TILES, Span, Tiling

TILE = 128
CLASSES = ("dark", "light")
STRIDES = (8, 16, 32)

HOSTILE = [(1, 1), (127, 129), (3000, 4000), (1, 80_000_000), (20_000, 20), (60_000, 60_000)]


class TestTiles:
    def test_they_are_spread_evenly_and_share_what_they_overlap(self) -> None:
        # 10 steps of the grid, and 64 pixels to share: two tiles begin at 0 and 320 - 128 = 192,
        # so one between them begins at 96, and the borders are halfway.
        spans = [down for down, across in Tiling(TILE, TILE).tiles(310, 100)]
        assert spans == [
            Span(0, 128, 0, 96),
            Span(64, 192, 96, 160),
            Span(128, 256, 160, 224),
            Span(192, 320, 224, 320),
        ]

    @pytest.mark.parametrize("size", HOSTILE)
    @pytest.mark.parametrize("side", [LEAST_SIDE, TILE, 480, 1024])
    def test_every_place_is_taken_from_the_middle_of_one_tile(
        self, side: int, size: tuple[int, int]
    ) -> None:
        tiling = Tiling(TILE, side)
        rows, columns = tiling.seen_size(*size)
        tiles = tiling.tiles(rows, columns)
        assert 1 <= len(tiles) <= MOST_TILES
        down = sorted({tile.down for tile in tiles})
        assert down[0].first == 0
        assert rows <= down[-1].last == down[-1].stop < rows + GRID
        assert [span.last for span in down[:-1]] == [span.first for span in down[1:]]
        for span in down:
            assert all(edge % GRID == 0 for edge in span)
            assert span.stop - span.start <= side
            assert span.first == 0 or span.first - span.start >= GRID
            assert span.last == down[-1].stop or span.stop - span.last >= GRID

    def test_an_image_is_seen_at_its_own_size_unless_it_has_too_many_tiles(self) -> None:
        assert Tiling(480, 480).seen_size(1080, 1920) == (1080, 1920)
        assert Tiling(960, 480).seen_size(1080, 1920) == (540, 960)
        rows, columns = Tiling(480, 480).seen_size(6000, 8000)
        assert rows < 3000
        assert columns / rows == pytest.approx(8 / 6, rel=0.01)

    def test_a_side_without_room_to_overlap_is_refused(self) -> None:
        with pytest.raises(ModelError, match="64"):
            Tiling(TILE, 64)


def pooled(batch: Tensor) -> list[ImageFeatures]:
    """The mean of each place of each stride: what a backbone without a context would see."""
    maps = [functional.avg_pool2d(batch.float(), stride) for stride in STRIDES]
    return [
        ImageFeatures(tuple(level[row] for level in maps), (TILE, TILE))
        for row in range(len(batch))
    ]


def noise(rows: int, columns: int) -> Tensor:
    draws = torch.Generator().manual_seed(0)
    return torch.randint(1, 256, (3, rows, columns), generator=draws, dtype=torch.uint8)


class TestLooking:
    def test_tiles_become_the_map_of_the_whole_image(self) -> None:
        image = noise(310, 500)
        batches: list[int] = []

        def extract(batch: Tensor) -> list[ImageFeatures]:
            batches.append(len(batch))
            return pooled(batch)

        found = Tiling(TILE, TILE).look(image, extract, at_once=5)
        padded = functional.pad(image, (0, 12, 0, 10)).float()
        assert found.content == (310, 500)
        for level, stride in zip(found.maps, STRIDES, strict=True):
            assert torch.equal(level, functional.avg_pool2d(padded, stride))
        assert max(batches) == 5
        assert sum(batches) == 4 * 7

    def test_a_part_of_the_map_is_that_of_the_tile(self) -> None:
        tiling = Tiling(TILE, TILE)
        found = tiling.look(noise(310, 500), pooled, at_once=4)
        last = tiling.tiles(310, 500)[-1]
        part = last.of(found)
        assert part.content == (310 - 192, 500 - 384)
        for level, whole, stride in zip(part.maps, found.maps, STRIDES, strict=True):
            assert torch.equal(level, whole[:, -TILE // stride :, -TILE // stride :])


@pytest.fixture(scope="module", autouse=True)
def backbone() -> Backbone:
    """Held, so that it is read once."""
    return open_backbone(DEFAULT_BACKBONE, torch.device("cpu"))


def network(task: str, tile: int | None = TILE) -> DenseHeadNetwork:
    made = make_network(task, DEFAULT_BACKBONE, CLASSES, tile=tile)
    assert isinstance(made, DenseHeadNetwork)
    return made


class Scenes:
    """Grey images of 288 by 416 pixels with a dark and a light square of 24 pixels, whose centres
    may lie on the borders between tiles of 192 pixels, at row 144 and at columns 160 and 272.
    """

    def __init__(self, task: str, count: int, first: int = 0, on_borders: bool = False) -> None:
        self._task, self._count, self._first = task, count, first
        self._on_borders = on_borders

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int, /) -> tuple[Tensor, Tensor]:
        number = self._first + index
        draws = torch.Generator().manual_seed(number)
        image = torch.randint(110, 140, (3, 288, 416), generator=draws, dtype=torch.uint8)
        mask = torch.full((288, 416), IGNORED, dtype=torch.uint8)
        boxes = []
        for label in range(2):
            top = int(torch.randint(0, 264, (), generator=draws))
            left = 208 * label + int(torch.randint(0, 184, (), generator=draws))
            if self._on_borders:
                top, left = 132, 148 + 112 * label
            image[:, top : top + 24, left : left + 24] = (20, 235)[label]
            mask[:, 208 * label : 208 * (label + 1)] = label
            boxes.append([left, top, left + 24, top + 24, label])
        if self._task == "detection":
            return image, torch.tensor(boxes, dtype=torch.float32)
        return image, mask


class TestLessons:
    def test_a_box_is_taught_by_tiles_that_show_half_of_it(self) -> None:
        made = network("detection")
        image = made.look([made.prepare(noise(310, 100))])
        # In the four tiles from 0, 64, 128 and 192: whole, whole, not at all, not at all; and a
        # quarter in the first, three quarters in the second.
        boxes = torch.tensor([[10.0, 70, 30, 90, 0], [50, 124, 70, 140, 1]])
        target = made.prepare_target(boxes, 310, 100)
        features, targets = made.lessons(image, [target])
        assert [part.tolist() for part in targets[:3]] == [
            [[10, 70, 30, 90, 0]],
            [[10, 6, 30, 26, 0], [50, 60, 70, 76, 1]],
            [[50, 0, 70, 12, 1]],
        ]
        assert [each.content for each in features] == [(128, 100)] * 3 + [(118, 100)]

    def test_at_most_as_many_tiles_are_empty(self) -> None:
        made = network("detection")
        image = made.look([made.prepare(noise(310, 500))])
        target = torch.tensor([[2.0, 2, 2 + MIN_SIDE, 20, 0]])
        _, targets = made.lessons(image, [target])
        assert [len(part) for part in targets] == [1, 0]

    def test_masks_are_cut_with_their_images(self) -> None:
        made = network("segmentation")
        image = made.look([made.prepare(noise(310, 100))])
        mask = torch.zeros(310, 100, dtype=torch.uint8)
        mask[200:] = 1
        features, targets = made.lessons(image, [made.prepare_target(mask, 310, 100)])
        assert len(features) == 4
        assert targets[3][:8].unique().tolist() == [0, IGNORED]
        assert targets[3][8:118, :100].unique().tolist() == [1]
        assert targets[3][118:].unique().tolist() == [IGNORED]


@pytest.mark.slow
class TestLearning:
    def test_objects_on_borders_are_found_once(self) -> None:
        made = network("detection", 192)
        # After 20 epochs it is 0.82 with a standard deviation of 0.13 where the last bits of the
        # features differ, as between processors; after 35 it has been 1.
        fit(made, Scenes("detection", 6), None, Recipe(epochs=40))
        cut = Scenes("detection", 4, first=20, on_borders=True)
        assert made.evaluate(cut).main > 0.6
        (found,) = made.predict(made.prepare(cut[0][0])[None]).findings()
        assert isinstance(found, Detections)
        for label in range(2):
            best = found.boxes[found.labels == label][0] * torch.tensor([416, 288, 416, 288])
            # A part on one side of the border would have 12.
            assert min(best[2] - best[0], best[3] - best[1]) > 16

    def test_pixels_are_labelled_at_the_size_of_the_image(self, tmp_path: Path) -> None:
        made = network("segmentation")
        fit(made, Scenes("segmentation", 2, first=1), Scenes("segmentation", 1), Recipe(epochs=2))
        made.save(tmp_path / "saved")
        again = load_network(tmp_path / "saved", torch.device("cpu"))
        images = [again.prepare(Scenes("segmentation", 1)[0][0])]
        (found,) = again.predict(images[0][None]).findings()
        (wanted,) = made.predict(images[0][None]).findings()
        assert isinstance(found, Segmentation)
        assert isinstance(wanted, Segmentation)
        assert found.labels.shape == (288, 416)
        assert torch.equal(found.labels, wanted.labels)


class TestNetworks:
    def test_its_features_are_not_those_of_whole_images(self) -> None:
        names = [network("detection", tile).extraction for tile in (None, 128, 160)]
        assert len(set(names)) == 3

    def test_features_that_are_kept_in_memory_are_those_of_its_tiles(self) -> None:
        first, other = network("detection", 128), network("detection", 192)
        image = first.prepare(noise(310, 500))[None]
        assert torch.equal(image, other.prepare(noise(310, 500))[None])
        first.features(image)
        (kept,), (computed,) = other.features(image), other.look(image)
        assert all(torch.equal(a, b) for a, b in zip(kept.maps, computed.maps, strict=True))

    def test_a_batch_has_fewer_images_if_each_may_have_many_tiles(self) -> None:
        assert network("detection").prediction_batch_size == 1
        assert network("detection", None).prediction_batch_size > 1

    @pytest.mark.parametrize(
        ("task", "architecture"),
        [("classification", DEFAULT_BACKBONE), ("detection", "ssdlite320_mobilenet_v3_large")],
    )
    def test_only_heads_on_maps_see_tiles(self, task: str, architecture: str) -> None:
        with pytest.raises(ModelError, match="tiles"):
            make_network(task, architecture, CLASSES, pretrained="auto", tile=TILE)

    def test_a_large_image_may_have_more_boxes(self) -> None:
        made: TaskNetwork = network("detection")
        weights = made.module.get_parameter("classify.bias")
        with torch.no_grad():
            weights.fill_(2.0)
        prediction = made.predict(made.prepare(noise(310, 500))[None])
        (found,) = prediction.findings()
        assert isinstance(found, Detections)
        assert len(found.boxes) > 100
        assert len(prediction.regions[0]) > 100


def test_the_loss_of_a_large_image_is_summed_strip_by_strip() -> None:
    draws = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 2 * ROWS_AT_ONCE + 5, 4, generator=draws)
    mask = torch.randint(0, 3, (8 * logits.shape[1], 30), generator=draws)
    mask[3:9] = IGNORED
    whole = functional.cross_entropy(
        enlarge(logits[None], mask.shape), mask[None], ignore_index=IGNORED, reduction="sum"
    )
    torch.testing.assert_close(summed_cross_entropy(logits, mask), whole)
