"""The detection head: its layers, its loss and its predictions, on made-up feature maps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from cdal.models import Detections, ModelError, Recipe, load_network, make_network
from cdal.models.backbone import DEFAULT_BACKBONE
from cdal.models.detection.head import (
    DetectionHead,
    DetectionLayers,
    mirrored_boxes,
    overlaps,
)
from cdal.models.detection.places import Places, assigned
from cdal.models.detection.turned import (
    corners_of,
    hulls_of,
    rectangles_of,
    spreads_of,
    turned_overlaps,
)
from cdal.models.features import ImageFeatures

CPU = torch.device("cpu")
SIDE = 128
PLACES = 16 * 16 + 8 * 8 + 4 * 4
CHANNELS = (3, 5)
LARGE = (4.0, 4, 124, 124)  # found by 8 by 8 places at stride 8
SMALL = (40.0, 40, 56, 56)  # found by 2 by 2 places


class Given(DetectionLayers):
    """Layers that answer what they are given."""

    def __init__(self, logits: Tensor, distances: Tensor) -> None:
        super().__init__(CHANNELS, logits.shape[2])
        self.given = logits, distances

    def forward(
        self,
        maps: Sequence[Tensor],
        size: tuple[int, int],
    ) -> tuple[Tensor, Tensor]:
        return self.given


def head(classes: int = 1) -> DetectionHead:
    """A network whose layers expect maps of ``CHANNELS``."""
    names = tuple("ABC"[:classes])
    made = make_network("detection", DEFAULT_BACKBONE, names, SIDE, CPU)
    assert isinstance(made, DetectionHead)
    torch.manual_seed(0)
    made.module = DetectionLayers(CHANNELS, classes).eval()
    return made


def given(logits: Tensor, distances: Tensor) -> DetectionHead:
    """A network that answers with logits (A, C) and distances (A, 4) for one image."""
    made = head(logits.shape[1])
    made.module = Given(logits[None], distances[None])
    return made


def image(content: tuple[int, int] = (SIDE, SIDE)) -> ImageFeatures:
    torch.manual_seed(1)
    maps = (torch.randn(3, SIDE // 8, SIDE // 8), torch.randn(5, SIDE // 16, SIDE // 16))
    return ImageFeatures(tuple(level.half() for level in maps), content)


def scene(number: int) -> tuple[ImageFeatures, Tensor]:
    """An image of noise in which a channel of each map shows a small and a large object."""
    draws = torch.Generator().manual_seed(number)
    small, large = (int(torch.randint(0, most, (), generator=draws)) for most in (4, 4))
    boxes = target(
        (8.0 + 16 * small, 8, 24.0 + 16 * small, 24, 0),
        (8.0 * large, 40, 72.0 + 8 * large, 112, 1),
    )
    maps = []
    for channels, stride in zip(CHANNELS, (8, 16), strict=True):
        level = torch.randn(channels, SIDE // stride, SIDE // stride, generator=draws) * 0.1
        for row in boxes.int().tolist():
            left, top, right, bottom = (side // stride for side in row[:4])
            level[row[4], top:bottom, left:right] += 2
        maps.append(level.half())
    return ImageFeatures(tuple(maps), (SIDE, SIDE)), boxes


def target(*rows: tuple[float, ...]) -> Tensor:
    return torch.tensor([(*row, 0)[:5] for row in rows]).view(-1, 5)


def exact(boxes: Tensor) -> Tensor:
    """The distances with which places find boxes, (A, 4) each."""
    places = Places.of((SIDE // 8, SIDE // 8), CPU)
    away = torch.cat([places.centres - boxes[:, :2], boxes[:, 2:] - places.centres], 1)
    return (away / places.strides[:, None]).clamp(min=1e-3).log()


def loss(made: DetectionHead, features: ImageFeatures, wanted: Tensor, flip: bool = False) -> float:
    objective = made.head_objective([features], [wanted], Recipe())
    return float(objective([0], torch.tensor([flip])).detach())


class TestLayers:
    def test_they_answer_for_every_place(self) -> None:
        layers = DetectionLayers(CHANNELS, 3).eval()
        maps = torch.randn(2, 3, 8, 12), torch.randn(2, 5, 4, 6)
        logits, distances = layers(maps, (8, 12))
        assert len(Places.of((8, 12), CPU).centres) == 96 + 24 + 6
        assert logits.shape == (2, 126, 3)
        assert distances.shape == (2, 126, 4)

    def test_an_odd_number_of_rows(self) -> None:
        layers = DetectionLayers(CHANNELS, 1).eval()
        logits, _ = layers((torch.randn(1, 3, 7, 9), torch.randn(1, 5, 4, 5)), (7, 9))
        assert logits.shape[1] == len(Places.of((7, 9), CPU).centres) == 63 + 20 + 6

    def test_they_expect_little_before_training(self) -> None:
        made = head(3)
        probabilities = made.module(made.stacked([image()]), (16, 16))[0].sigmoid()
        assert probabilities.mean().item() == pytest.approx(0.02, abs=0.005)

    def test_channels_are_dropped_in_training_only(self) -> None:
        layers = DetectionLayers(CHANNELS, 1)
        maps = torch.randn(1, 3, 8, 8), torch.randn(1, 5, 4, 4)
        layers.eval()
        assert torch.equal(layers(maps, (8, 8))[0], layers(maps, (8, 8))[0])
        layers.train()
        assert not torch.equal(layers(maps, (8, 8))[0], layers(maps, (8, 8))[0])


class TestObjective:
    def test_what_is_right_costs_nothing(self) -> None:
        wanted = target(LARGE)
        truth = assigned(Places.of((16, 16), CPU), wanted, 1)
        made = given(40 * truth.classes - 20, exact(truth.boxes))
        assert loss(made, image(), wanted) == pytest.approx(0, abs=1e-5)

    def test_an_object_counts_as_at_most_nine_places(self) -> None:
        """At a probability of 0.5, each place costs ln 2 / 4 if the box fits."""
        each = math.log(2) / 4
        for box, positive, weight in ((LARGE, 64, 9), (SMALL, 4, 4)):
            wanted = target(box)
            made = given(torch.zeros(PLACES, 1), exact(wanted[:, :4].expand(PLACES, 4)))
            expected = each * (PLACES - positive + weight) / weight
            assert loss(made, image(), wanted) == pytest.approx(expected, rel=1e-5)

    def test_a_box_that_does_not_fit_costs(self) -> None:
        """A box of twice the width has a generalized intersection over union of 0.5."""
        wanted = target(SMALL)
        wide = wanted[:, :4] + torch.tensor([-8.0, 0, 8, 0])
        logits = torch.full((PLACES, 1), -20.0)
        shown = assigned(Places.of((16, 16), CPU), wanted, 1).classes[:, 0] > 0
        logits[shown] = 0  # the probability 0.5, which is the overlap
        made = given(logits, exact(wide.expand(PLACES, 4)))
        assert loss(made, image(), wanted) == pytest.approx(0.5, abs=1e-5)

    def test_padding_does_not_count(self) -> None:
        features, wanted = image((128, 100)), target(SMALL)
        outside = ~Places.of((16, 16), CPU).inside(features.content)
        logits = torch.zeros(PLACES, 1)
        distances = exact(wanted[:, :4].expand(PLACES, 4))
        before = loss(given(logits, distances), features, wanted)
        logits[outside] = 30
        assert loss(given(logits, distances), features, wanted) == before
        assert loss(given(logits, distances), image(), wanted) > before

    def test_an_image_without_boxes_is_a_negative(self) -> None:
        objective = given(torch.zeros(PLACES, 1), torch.zeros(PLACES, 4)).head_objective(
            [image(), image()], [target(SMALL), target()], Recipe()
        )
        found = float(objective([1], torch.tensor([False])))
        assert found == pytest.approx(PLACES * math.log(2) / 4, rel=1e-5)

    def test_nothing_but_images_without_boxes(self) -> None:
        with pytest.raises(ModelError, match="no boxes"):
            head().head_objective([image()], [target()], Recipe())

    def test_a_mirrored_image_has_mirrored_boxes(self) -> None:
        made, features, wanted = head(), image(), target((10, 20, 50, 70), (70, 60, 110, 120))
        flipped = replace(features, maps=tuple(level.flip(2) for level in features.maps))
        other = mirrored_boxes(wanted, features, flip=True)
        assert loss(made, features, wanted, flip=True) == loss(made, flipped, other)

    def test_all_weights_learn(self) -> None:
        made = head(2)
        made.module.train()
        boxes = target(SMALL, (0, 0, 120, 128, 1))
        objective = made.head_objective([image(), image()], [boxes, boxes], Recipe())
        torch.autograd.backward(objective([0, 1], torch.tensor([False, True])))
        still = [name for name, p in made.module.named_parameters() if p.grad is None]
        assert not still


class TestRotated:
    """The prepared rows of rotated boxes are spread, class and tilt."""

    def test_what_is_right_costs_nothing(self) -> None:
        wanted = torch.tensor([[*LARGE, 0, 0.7]])
        truth = assigned(Places.of((16, 16), CPU), wanted, 1)
        right = torch.cat((exact(truth.boxes), torch.full((PLACES, 1), 0.7)), 1)
        made = given(40 * truth.classes - 20, right)
        assert loss(made, image(), wanted) == pytest.approx(0, abs=1e-5)
        right[:, 4] = 0.4
        assert loss(made, image(), wanted) > 0.3  # besides, the class is too sure
        # Mirrored, it is tilted the other way.
        (row,) = mirrored_boxes(wanted, image(), flip=True).tolist()
        assert row == pytest.approx([4, 4, 124, 124, 0, -0.7])

    def test_boxes_are_prepared_as_spreads(self) -> None:
        """A diamond whose sides have the ratio 3, at half the size."""
        corners = torch.tensor([[[100.0, 20], [160, 80], [140, 100], [80, 40]]])
        rows = torch.cat((*hulls_of(corners),), 1)
        rows = torch.cat((rows[:, :4], torch.zeros(1, 1), rows[:, 4:]), 1)
        (row,) = head().prepare_target(rows, 256, 256).tolist()
        assert row[5] == pytest.approx(math.log(3), rel=1e-4)
        found = rectangles_of(torch.tensor([row[:4]]), torch.tensor([row[5]]))
        assert turned_overlaps(found, corners / 2).item() > 0.9999
        upright = head().prepare_target(rows[:, :5], 256, 256)
        assert upright.tolist() == [[40, 10, 80, 50, 0]]

    def test_it_finds_rotated_boxes(self) -> None:
        corners = torch.tensor([[[40.0, 30], [80, 70], [70, 80], [30, 40]]])
        spreads, tilts = spreads_of(corners)
        wanted = torch.cat((spreads, torch.zeros(1, 1), tilts[:, None]), 1)
        truth = assigned(Places.of((16, 16), CPU), wanted, 1)
        answers = torch.cat((exact(truth.boxes), truth.tilts[:, None]), 1)
        predicted = given(8 * truth.classes - 6, answers).judge([image((128, 100))])
        (found,) = predicted.findings()
        assert isinstance(found, Detections)
        assert found.turns is not None
        again = corners_of(found.boxes, found.turns) * torch.tensor([100, 128])
        assert turned_overlaps(again, corners).tolist() == pytest.approx([1], abs=1e-3)

    def test_layers_are_added_for_rotated_boxes_only(self, tmp_path: Path) -> None:
        features, boxes = zip(*(scene(number) for number in range(2)), strict=True)
        tilted = [torch.cat((rows, torch.zeros(len(rows), 1)), 1) for rows in boxes]
        made = head(2)
        plan = made.plan(Recipe(epochs=1), 2)
        for rows, turning in ((boxes, False), (tilted, True), (boxes, True)):
            made.learn(features, rows, Recipe(), plan, lambda _epoch, _loss: None, lambda: False)
            assert made.is_turning == turning
            assert len(made.judge([features[0]]).findings()) == 1
            weights = made.module.state_dict()
            assert ("turn.weight" in weights) == turning
        network = make_network("detection", DEFAULT_BACKBONE, ("A",), SIDE, CPU)
        for turning in (False, True):
            if turning:
                network.module.begin_turning()  # type: ignore[operator]
            network.save(tmp_path / str(turning))
            loaded = load_network(tmp_path / str(turning), CPU, classes=("B", "A"))
            assert isinstance(loaded, DetectionHead)
            assert loaded.is_turning == turning

    @pytest.mark.slow
    def test_the_direction_is_learnt(self) -> None:
        """From eight images in which a channel shows how objects are tilted."""
        made = head(2)
        images, targets = [], []
        for number in range(10):
            features, boxes = scene(number)
            tilts = torch.tensor([1.0, -1.0]) * (-1) ** number
            for level, stride in zip(features.maps, (8, 16), strict=True):
                for row, tilt in zip(boxes.int().tolist(), tilts.tolist(), strict=True):
                    left, top, right, bottom = (side // stride for side in row[:4])
                    level[2, top:bottom, left:right] += 2 * tilt
            images.append(features)
            targets.append(torch.cat((boxes, tilts[:, None]), 1))
        plan = made.plan(Recipe(epochs=60), 8)
        recipe = Recipe(augmentation=False)  # a mirrored channel would show the opposite
        made.learn(images[:8], targets[:8], recipe, plan, lambda _epoch, _loss: None, lambda: False)
        for number in (8, 9):
            found = made.judge([images[number]]).detected
            assert found.tilts is not None
            for row in targets[number]:
                same = found.labels[0] == row[4]
                best = int(torch.where(same, found.scores[0], 0).argmax())
                assert float(found.tilts[0][best]) == pytest.approx(float(row[5]), abs=0.5)


class TestTraining:
    @pytest.mark.slow
    def test_objects_of_very_different_size_are_learnt(self) -> None:
        """From eight images, each with an object of 16 and one of 72 pixels."""
        made = head(2)
        images, targets = zip(*(scene(number) for number in range(10)), strict=True)
        plan = made.plan(Recipe(epochs=60), 8)
        made.learn(
            images[:8], targets[:8], Recipe(), plan, lambda _epoch, _loss: None, lambda: False
        )
        for number in (8, 9):
            found = made.judge([images[number]]).detected
            for row in targets[number]:
                same = found.labels[0] == row[4]
                best = int(torch.where(same, found.scores[0], 0).argmax())
                overlap = overlaps(found.boxes[0][best][None], row[None, :4])
                assert overlap.item() > 0.5


class TestPredictions:
    def test_a_box_is_found_once(self) -> None:
        """As shares of the image, which fills only 100 columns of the square."""
        wanted = target(SMALL)
        truth = assigned(Places.of((16, 16), CPU), wanted, 1)
        made = given(8 * truth.classes - 6, exact(truth.boxes))
        predicted = made.judge([image((128, 100))])
        (found,) = predicted.findings()
        assert isinstance(found, Detections)
        assert found.labels.tolist() == [0]
        assert found.confidences.tolist() == pytest.approx([1 / (1 + math.exp(-2))])
        expected = [0.4, 0.3125, 0.56, 0.4375]
        assert found.boxes.flatten().tolist() == pytest.approx(expected, abs=1e-4)
        # The regions are the boxes before non-maximum suppression.
        assert predicted.regions[0].shape == (4, 1)

    def test_nothing_is_found_in_the_padding(self) -> None:
        features = image((128, 100))
        outside = ~Places.of((16, 16), CPU).inside(features.content)
        made = given(torch.where(outside, 9.0, -9.0)[:, None], torch.zeros(PLACES, 4))
        predicted = made.judge([features])
        assert len(predicted.detected.boxes[0]) == 0
        assert float(predicted.regions[0].max()) < 0.01

    def test_boxes_end_at_the_image(self) -> None:
        logits = torch.full((PLACES, 1), -9.0)
        logits[0] = 9
        (found,) = given(logits, torch.full((PLACES, 4), 3.0)).judge([image()]).findings()
        assert isinstance(found, Detections)
        assert found.boxes.min() == 0
        assert found.boxes.max() == 1

    def test_images_of_different_shapes(self) -> None:
        made = head(2)
        narrow = ImageFeatures((torch.zeros(3, 16, 8), torch.zeros(5, 8, 4)), (128, 50))
        together = made.judge([image(), narrow, image()])
        alone = made.judge([narrow])
        assert [len(boxes) for boxes in together.detected.boxes][1] == len(alone.detected.boxes[0])
        assert torch.allclose(together.regions[1], alone.regions[0], atol=1e-6)
        assert torch.allclose(together.regions[0], together.regions[2], atol=1e-6)


def test_boxes_are_prepared_in_pixels_of_the_square() -> None:
    rows = target((0, 0, 200, 100), (-10, 50, 100, 120), (50, 50, 50.5, 90))
    prepared = head().prepare_target(rows, 100, 200)
    assert prepared.tolist() == [[0, 0, 128, 64, 0], [0, 32, 64, 64, 0]]
