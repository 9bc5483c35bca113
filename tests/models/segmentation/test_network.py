from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from support.shapes import Shapes, shapes_network
from torch import Tensor
from torch.nn import functional

from cdal.models import (
    BACKGROUND,
    IGNORED,
    ClassScore,
    FitProgress,
    ModelError,
    Recipe,
    Segmentation,
    SegmentationNetwork,
    Stopped,
    fit,
    load_network,
    make_network,
)
from cdal.models.segmentation.architectures import SEGMENTERS
from cdal.models.segmentation.network import SegmentationPrediction
from cdal.selectors.mixtures import mixtures_of_logits

OF_CLASSES = [name for name, entry in SEGMENTERS.items() if not entry.finds_objects]


@pytest.fixture(scope="module")
def trained() -> SegmentationNetwork:
    """A network that distinguishes rectangles from discs; do not change it."""
    network = shapes_network()
    fit(network, Shapes(16), None, Recipe(epochs=20, batch_size=8))
    return network


class Masks:
    """Black images with these masks."""

    def __init__(self, *masks: list[list[int]]) -> None:
        self.masks = [torch.tensor(mask, dtype=torch.uint8) for mask in masks]

    def __len__(self) -> int:
        return len(self.masks)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        mask = self.masks[index]
        return torch.zeros((3, *mask.shape), dtype=torch.uint8), mask


@pytest.mark.slow
class TestTraining:
    def test_recognises_unseen_shapes(self, trained: SegmentationNetwork) -> None:
        unseen = Shapes(8, size=(60, 90), seed=1)
        before, after = shapes_network().evaluate(unseen), trained.evaluate(unseen)
        assert before.main < 0.3
        assert after.main > 0.6
        assert after.values["loss"] < before.values["loss"]

    def test_label_maps_match_the_images(self, trained: SegmentationNetwork) -> None:
        shapes = Shapes(4, size=(60, 90), seed=2)
        batch = torch.stack([trained.prepare(image) for image, _ in shapes.examples])
        found = trained.predict(batch).findings()
        for finding, (_, target) in zip(found, shapes.examples, strict=True):
            assert isinstance(finding, Segmentation)
            assert finding.labels.shape == (trained.image_size, trained.image_size)
            mask = trained.prepare_target(target, *target.shape)
            assert float((finding.labels == mask).float().mean()) > 0.75

    def test_keeps_the_last_epoch_and_reports_progress(self) -> None:
        reports: list[FitProgress] = []
        network = shapes_network()
        recipe = Recipe(epochs=3, batch_size=4)
        report = fit(network, Shapes(4), Shapes(2, seed=1), recipe, reports.append)
        assert report.metrics is not None
        assert report.metrics.main == report.held_out[-1]
        assert network.evaluate(Shapes(2, seed=1)).main == report.metrics.main
        assert [progress.epoch for progress in reports if progress.metric is not None][-1] == 3

    def test_the_same_seed_gives_the_same_weights(self) -> None:
        first, second = shapes_network(), shapes_network()
        for network in (first, second):
            fit(network, Shapes(4), None, Recipe(epochs=1, batch_size=2))
        assert all(
            torch.equal(tensor, second.module.state_dict()[name])
            for name, tensor in first.module.state_dict().items()
        )

    def test_stops(self) -> None:
        calls = 0

        def stop() -> bool:
            nonlocal calls
            calls += 1
            return calls > 5

        with pytest.raises(Stopped):
            fit(shapes_network(), Shapes(4), None, Recipe(epochs=50, batch_size=2), stop=stop)
        assert calls == 6

    def test_masks_with_only_ignored_pixels_are_refused(self) -> None:
        with pytest.raises(ModelError, match="no labelled pixels to learn from"):
            fit(shapes_network(), Masks([[IGNORED] * 4] * 4), None, Recipe(epochs=1))


class TestObjective:
    def test_by_hand(self) -> None:
        """Four pixels are of class 0 and two of class 1; all others are ignored."""
        network = shapes_network(("a", "b"), image_size=32)
        images = torch.randint(0, 256, (1, 3, 32, 32)).float()
        mask = torch.full((32, 32), IGNORED, dtype=torch.uint8)
        mask[0, :4], mask[1, :2] = 0, 1
        with torch.inference_mode():
            logits = network.module(network.normalise(images))[1]
            logits = functional.interpolate(logits, size=(32, 32), mode="bilinear")
            losses = -logits.log_softmax(1)[0]
            zeros, ones = losses[0, 0, :4].sum(), losses[1, 1, :2].sum()
            counts = torch.tensor([4.0, 1.0]).double()  # weights 1/2 and 1, up to a factor
            weighted = network.objective(counts, Recipe())(images, [mask])
            plain = network.objective(counts, Recipe(class_weights=False))(images, [mask])
        assert float(plain) == pytest.approx(float(zeros + ones) / 6, rel=1e-4)
        assert float(weighted) == pytest.approx(float(zeros / 2 + ones) / 4, rel=1e-4)

    def test_a_batch_of_ignored_pixels_has_no_loss(self) -> None:
        network = shapes_network(("a", "b"), image_size=32)
        mask = torch.full((32, 32), IGNORED, dtype=torch.uint8)
        for recipe in (Recipe(), Recipe(label_smoothing=0.1, class_weights=False)):
            objective = network.objective(torch.ones(2).double(), recipe)
            loss = objective(torch.zeros(2, 3, 32, 32), [mask, mask])
            assert float(loss.detach()) == 0
            torch.autograd.backward(loss)
            gradients = [p.grad for p in network.module.parameters() if p.grad is not None]
            assert all(bool((gradient == 0).all()) for gradient in gradients)

    def test_one_image_is_enough_for_deeplabv3(self) -> None:
        """Its batch normalisation of one value per image needs two images."""
        network = shapes_network(("a", "b"), 32, architecture="deeplabv3_mobilenet_v3_large")
        network.module.train()
        objective = network.objective(torch.ones(2).double(), Recipe())
        loss = objective(torch.zeros(1, 3, 32, 32), [torch.zeros((32, 32), dtype=torch.uint8)])
        assert math.isfinite(float(loss.detach()))

    def test_ignored_pixels_do_not_count(self) -> None:
        network = shapes_network(("a", "b"), image_size=32)
        images = torch.randint(0, 256, (1, 3, 32, 32)).float()
        mask = torch.zeros((32, 32), dtype=torch.uint8)
        mask[:, 16:] = IGNORED
        with torch.inference_mode():
            loss = network.objective(torch.ones(2).double(), Recipe())(images, [mask])
            logits = network.module(network.normalise(images))[1]
            logits = functional.interpolate(logits, size=(32, 32), mode="bilinear")
        left = -logits.log_softmax(1)[0, 0, :, :16].mean()
        assert float(loss) == pytest.approx(float(left), rel=1e-4)


class TestPredict:
    def test_shapes_and_types(self) -> None:
        prediction = shapes_network().predict(torch.zeros((5, 3, 64, 64), dtype=torch.uint8))
        assert len(prediction) == 5
        assert prediction.logits.shape == (5, 3, 8, 8)
        assert prediction.features.shape == (5, 960)

    def test_logits_are_far_smaller_than_the_images(self) -> None:
        images = torch.zeros((2, 3, 96, 96), dtype=torch.uint8)
        logits = shapes_network(image_size=96).predict(images).logits
        assert logits.untyped_storage().nbytes() == 4 * 2 * 3 * (96 // 8) ** 2
        assert logits.untyped_storage().nbytes() < images.untyped_storage().nbytes() / 10

    def test_an_image_does_not_depend_on_its_batch(self) -> None:
        network = shapes_network()
        images = torch.randint(0, 256, (4, 3, 64, 64), dtype=torch.uint8)
        together = network.predict(images).logits
        alone = torch.cat([network.predict(image[None]).logits for image in images])
        assert torch.allclose(together, alone, atol=1e-5)

    def test_regions_give_class_mixtures(self) -> None:
        images = torch.randint(0, 256, (4, 3, 64, 64), dtype=torch.uint8)
        mixtures = mixtures_of_logits(shapes_network().predict(images).logits)
        assert mixtures.mixtures.shape == (4, 3, 3)
        assert mixtures.region_counts.sum(1).tolist() == [64] * 4


class TestFindings:
    def test_by_hand(self) -> None:
        """Class 1 is in the right half, and in one image class 2 is in the lower half."""
        logits = torch.zeros(2, 3, 4, 4)
        logits[:, 1, :, 2:] = math.log(2)
        logits[:, 0, :, :2] = math.log(6)
        logits[1, 2, 2:] = 9
        prediction = SegmentationPrediction(logits, torch.zeros(2, 1), image_size=12)
        first, second = prediction.findings()
        assert isinstance(first, Segmentation)
        assert isinstance(second, Segmentation)
        # Between the middle columns ln 6 falls to 0 and ln 2 rises from 0. They are equal at 0.72
        # of the way; the seventh of twelve columns is at 2/3.
        row = [0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1]
        assert first.labels.tolist() == [row] * 12
        # Class 2 rises from 0 to 9 between the middle rows, and is the highest from 1/3 on.
        assert second.labels.tolist() == [row] * 5 + [[2] * 12] * 7
        assert first.labels.dtype == torch.uint8
        assert first.confidences.dtype == torch.float32
        assert first.confidences.shape == (4, 4)
        assert first.confidences[0].tolist() == pytest.approx([6 / 8, 6 / 8, 2 / 4, 2 / 4])


class TestPrepareTarget:
    def test_is_resized_like_the_image(self) -> None:
        network = shapes_network(image_size=32)
        mask = torch.zeros((20, 80), dtype=torch.uint8)
        mask[10:, 40:] = 2
        image = (mask * 100).expand(3, -1, -1)
        prepared, target = network.prepare_example(image, mask)
        assert target.shape == (32, 32)
        assert target.dtype == torch.uint8
        assert torch.equal(target == 2, prepared[0] >= 100)

    def test_keeps_ignored_pixels(self) -> None:
        mask = torch.full((8, 8), IGNORED, dtype=torch.uint8)
        mask[0, 0] = 1
        found = shapes_network(image_size=32).prepare_target(mask, 8, 8)
        assert bool((found[:4, :4] == 1).all())
        assert int((found == IGNORED).sum()) == 32 * 32 - 16

    def test_refuses_an_unknown_class(self) -> None:
        mask = torch.tensor([[0, 3]], dtype=torch.uint8)
        with pytest.raises(ModelError, match=r"class index 3, .* 3 classes"):
            shapes_network().prepare_target(mask, 1, 2)

    @pytest.mark.parametrize(
        "mask", [torch.zeros((8, 9)).byte(), torch.zeros((8, 8)), torch.zeros((1, 8, 8)).byte()]
    )
    def test_refuses_anything_but_a_mask_of_the_image(self, mask: Tensor) -> None:
        with pytest.raises(ModelError, match="mask of an image of 8 rows and 8 columns"):
            shapes_network().prepare_target(mask, 8, 8)

    def test_counts_pixels(self) -> None:
        mask = torch.tensor([[0, 2, 2, IGNORED]], dtype=torch.uint8)
        assert shapes_network().count_classes(mask).tolist() == [1, 0, 2]


class TestEvaluate:
    @pytest.fixture
    def network(self, monkeypatch: pytest.MonkeyPatch) -> SegmentationNetwork:
        """A network that predicts class 0 for the left half of every image and 1 for the right."""
        network = shapes_network(("a", "b", "c"), image_size=32)

        def infer(batch: Tensor) -> tuple[Tensor, Tensor]:
            logits = torch.zeros(len(batch), 3, 32, 32)
            logits[:, 0, :, :16] = 2
            logits[:, 1, :, 16:] = 2
            return torch.zeros(len(batch), 1), logits

        monkeypatch.setattr(network, "_infer", infer)
        return network

    def test_by_hand(self, network: SegmentationNetwork) -> None:
        # The quarters of the first image: 0 is right, 0 is predicted as 1, ignored, 1 is right.
        # The second image is class 0 on the left and ignored on the right.
        metrics = network.evaluate(Masks([[0, 0], [IGNORED, 1]], [[0, IGNORED]]))
        quarter = 16 * 16
        assert metrics.confusion == (
            (3 * quarter, quarter, 0), (0, quarter, 0), (0, 0, 0)
        )  # fmt: skip
        assert metrics.per_class == {
            "a": ClassScore(4 * quarter, 3 / 4),
            "b": ClassScore(quarter, 1 / 2),
            "c": ClassScore(0, None),
        }
        assert metrics.main_name == "miou"
        assert metrics.main == pytest.approx((3 / 4 + 1 / 2) / 2)
        assert metrics.values["accuracy"] == pytest.approx(4 / 5)
        assert metrics.values["macro_accuracy"] == pytest.approx((3 / 4 + 1) / 2)
        right, wrong = (-math.log(math.exp(x) / (math.exp(2) + 2)) for x in (2, 0))
        assert metrics.values["loss"] == pytest.approx((4 * right + wrong) / 5)
        assert metrics.images == 2

    def test_a_class_without_pixels_does_not_count_if_predicted(
        self, network: SegmentationNetwork
    ) -> None:
        """Pixels wrongly predicted as b already lower the score of a."""
        metrics = network.evaluate(Masks([[0, 0]]))
        assert metrics.per_class["b"] == ClassScore(0, None)
        assert metrics.main == pytest.approx(1 / 2)

    def test_no_images_or_no_labelled_pixels(self, network: SegmentationNetwork) -> None:
        with pytest.raises(ModelError, match="no labelled images to measure"):
            network.evaluate(Masks())
        with pytest.raises(ModelError, match="no labelled pixels to measure"):
            network.evaluate(Masks([[IGNORED]]))

    def test_stops(self, network: SegmentationNetwork) -> None:
        with pytest.raises(Stopped):
            network.evaluate(Masks([[0]]), stop=lambda: True)


class TestWithClasses:
    @pytest.mark.parametrize("architecture", OF_CLASSES)
    def test_classes_keep_their_weights_by_name(self, architecture: str) -> None:
        """Classes are reordered; one is renamed, one removed and one new."""
        old = shapes_network(("sky", "road", "tree", BACKGROUND), architecture=architecture)
        new = old.with_classes(
            ("plant", "sky", "car", BACKGROUND), known_as={"plant": ("tree", "bush")}
        )
        images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
        before, after = old.predict(images).logits, new.predict(images).logits
        assert torch.allclose(after[:, [1, 0, 3]], before[:, [0, 2, 3]], atol=1e-4)
        assert not torch.allclose(after[:, 2], before[:, 1], atol=1e-4)

    def test_too_many_classes(self) -> None:
        with pytest.raises(ModelError, match="at most 255 classes"):
            shapes_network(tuple(str(number) for number in range(256)))


class TestSaveAndLoad:
    def test_gives_the_same_predictions(self, tmp_path: Path, trained: SegmentationNetwork) -> None:
        trained.save(tmp_path / "version")
        loaded = load_network(tmp_path / "version", torch.device("cpu"))
        assert isinstance(loaded, SegmentationNetwork)
        images = torch.stack([image for image, _ in Shapes(3, seed=3).examples])
        assert torch.equal(loaded.predict(images).logits, trained.predict(images).logits)
        assert loaded.classes == ("rectangle", "disc", BACKGROUND)


def test_default_network() -> None:
    network = make_network("segmentation", classes=("a", "b"), pretrained=False)
    assert network.manifest.architecture == "lraspp_mobilenet_v3_large"
    assert network.image_size == network.defaults.max_side[0]


def test_one_class_and_no_background_is_refused() -> None:
    with pytest.raises(ModelError, match=r'only "road"\. .*background, or add a class'):
        make_network("segmentation", classes=("road",), pretrained=False)
    make_network("segmentation", classes=("road", BACKGROUND), pretrained=False)
