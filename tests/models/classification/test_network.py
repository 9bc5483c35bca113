from __future__ import annotations

import math

import pytest
import torch
from support.colours import Colours, small_network
from torch import Tensor
from torch.nn import functional

from cdal.models import (
    Classification,
    ClassificationNetwork,
    ClassScore,
    ModelError,
    Recipe,
    Stopped,
)
from cdal.models.classification.network import ClassificationPrediction


class TestPredict:
    def test_probabilities_and_features(self) -> None:
        prediction = small_network().predict(torch.zeros((5, 3, 32, 32), dtype=torch.uint8))
        assert len(prediction) == 5
        assert prediction.probabilities.shape == (5, 3)
        assert prediction.features.shape == (5, 1024)
        assert prediction.probabilities.dtype == prediction.features.dtype == torch.float32
        assert torch.allclose(prediction.probabilities.sum(1), torch.ones(5))

    def test_an_image_does_not_depend_on_its_batch(self) -> None:
        network = small_network()
        images = torch.randint(0, 256, (6, 3, 32, 32), dtype=torch.uint8)
        together = network.predict(images).probabilities
        alone = torch.cat([network.predict(image[None]).probabilities for image in images])
        assert torch.allclose(together, alone, atol=1e-6)

    def test_features_are_the_input_of_the_head(self) -> None:
        network = small_network()
        prediction = network.predict(torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8))
        with torch.inference_mode():
            logits = network.module.head(prediction.features)
        assert torch.allclose(logits.softmax(1), prediction.probabilities, atol=1e-6)

    def test_findings_are_the_most_probable_classes(self) -> None:
        regions = torch.tensor([[0.25, 0.75], [0.5, 0.5], [0.875, 0.125]])
        prediction = ClassificationPrediction(regions, features=torch.zeros(3, 4))
        assert prediction.findings() == [
            Classification(1, 0.75),
            Classification(0, 0.5),
            Classification(0, 0.875),
        ]


class TestEvaluate:
    @pytest.fixture
    def network(self, monkeypatch: pytest.MonkeyPatch) -> ClassificationNetwork:
        """A network that predicts the class of an image's brightest channel."""
        network = small_network()

        def infer(batch: Tensor) -> tuple[Tensor, Tensor]:
            means = batch.float().mean((2, 3))
            return means, functional.one_hot(means.argmax(1), 3) * 2.0

        monkeypatch.setattr(network, "_infer", infer)
        return network

    def test_by_hand(self, network: ClassificationNetwork) -> None:
        data = Colours([0, 0, 0, 1])
        data.targets = [0, 0, 2, 1]  # the third image is red but labelled blue
        metrics = network.evaluate(data)
        assert metrics.main_name == "accuracy"
        assert metrics.main == metrics.values["accuracy"] == 0.75
        assert metrics.values["macro_accuracy"] == pytest.approx(2 / 3)
        right, wrong = (-math.log(math.exp(x) / (math.exp(2) + 2)) for x in (2, 0))
        assert metrics.values["loss"] == pytest.approx((3 * right + wrong) / 4)
        assert metrics.confusion == ((2, 0, 0), (0, 1, 0), (1, 0, 0))
        assert metrics.per_class == {
            "red": ClassScore(2, 1.0),
            "green": ClassScore(1, 1.0),
            "blue": ClassScore(1, 0.0),
        }
        assert metrics.images == 4

    def test_a_class_without_images_has_no_score_and_does_not_count(
        self, network: ClassificationNetwork
    ) -> None:
        metrics = network.evaluate(Colours([0, 0]))
        assert metrics.per_class["blue"] == ClassScore(0, None)
        assert metrics.values["macro_accuracy"] == 1.0

    def test_more_images_than_a_batch(self, network: ClassificationNetwork) -> None:
        metrics = network.evaluate(Colours([0, 1, 2] * 50))
        assert metrics.images == 150
        assert metrics.main == 1.0

    def test_no_images(self, network: ClassificationNetwork) -> None:
        with pytest.raises(ModelError, match="no labelled images to measure"):
            network.evaluate(Colours([]))

    @pytest.mark.parametrize("target", [-1, 3])
    def test_an_unknown_class(self, network: ClassificationNetwork, target: int) -> None:
        with pytest.raises(ModelError, match=f"class index {target}, .* 3 classes"):
            network.evaluate(Colours([0, target]))

    def test_stops(self, network: ClassificationNetwork) -> None:
        with pytest.raises(Stopped):
            network.evaluate(Colours([0]), stop=lambda: True)


class TestClassWeights:
    def test_the_objective_uses_them(self) -> None:
        network = small_network()
        targets = torch.tensor([0, 0, 0, 1])
        counts = torch.tensor([3, 1, 0])
        images = torch.randint(0, 256, (4, 3, 32, 32)).float()
        with torch.inference_mode():
            logits = network.module(network.normalise(images))[1]
            weighted = network.objective(counts, Recipe(label_smoothing=0))(images, list(targets))
            plain = network.objective(counts, Recipe(label_smoothing=0, class_weights=False))(
                images, list(targets)
            )
        losses = functional.cross_entropy(logits, targets, reduction="none")
        assert float(plain) == pytest.approx(float(losses.mean()), rel=1e-5)
        weights = torch.tensor([3.0, 3.0, 3.0, 1.0]).rsqrt()
        assert float(weighted) == pytest.approx(
            float((weights * losses).sum() / weights.sum()), rel=1e-5
        )


class TestWithClasses:
    def test_classes_keep_their_weights_by_name(self) -> None:
        old = small_network(("red", "green", "blue"))
        with torch.no_grad():
            old.module.head.weight.mul_(2)  # as if it had been trained
        new = old.with_classes(("blue", "pink", "red"))
        assert new.classes == ("blue", "pink", "red")
        assert torch.equal(new.module.head.weight[0], old.module.head.weight[2])
        assert torch.equal(new.module.head.weight[2], old.module.head.weight[0])
        assert torch.equal(new.module.head.bias[[0, 2]], old.module.head.bias[[2, 0]])
        assert not torch.equal(new.module.head.weight[1], old.module.head.weight[1])

    def test_classes_keep_their_weights_by_an_earlier_name(self) -> None:
        old = small_network(("red", "green", "blue"))
        new = old.with_classes(("azure", "red"), {"azure": ("cyan", "blue"), "red": ("green",)})
        assert torch.equal(new.module.head.weight, old.module.head.weight[[2, 0]])

    def test_a_class_that_stays_is_not_renamed(self) -> None:
        old = small_network(("red", "green"))
        new = old.with_classes(("red", "pink"), {"pink": ("red",)})
        assert not torch.equal(new.module.head.weight[1], old.module.head.weight[0])

    def test_does_not_change_the_old_network(self) -> None:
        old = small_network()
        new = old.with_classes(("red", "pink"))
        with torch.no_grad():
            next(new.module.trunk.parameters()).zero_()
            assert float(next(old.module.trunk.parameters()).abs().sum()) > 0
        assert old.classes == ("red", "green", "blue")
        assert old.module.head.out_features == 3

    def test_refuses_impossible_classes(self) -> None:
        with pytest.raises(ModelError, match="repeated: red"):
            small_network().with_classes(("red", "red"))
        with pytest.raises(ModelError, match=r'only "red"\. Add a class'):
            small_network().with_classes(("red",))
