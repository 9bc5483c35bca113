"""Several opinions about the regions of images: who may have them, and about which regions."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from cdal.models import make_network
from cdal.models.backbone import DEFAULT_BACKBONE
from cdal.models.classification.network import ClassificationPrediction
from cdal.models.detection.family import Detected
from cdal.models.detection.head import DetectionHeadPrediction
from cdal.models.detection.regions import BoxCandidates
from cdal.models.opinions import dropping, dropping_layers, regions_of
from cdal.models.segmentation.head import SegmentationHead
from cdal.models.segmentation.network import SegmentationPrediction

NONE = torch.zeros(1, 3)


@pytest.fixture(scope="module")
def head() -> SegmentationHead:
    made = make_network("segmentation", DEFAULT_BACKBONE, ("A", "B"), 32)
    assert isinstance(made, SegmentationHead)
    return made


def test_a_head_drops_features_only_while_it_is_asked_to(head: SegmentationHead) -> None:
    images = torch.randint(256, (2, 3, 32, 32), generator=torch.Generator().manual_seed(0))
    features = head.features(images.to(torch.uint8))

    def opinions(seed: int) -> Tensor:
        with dropping(head, seed):
            return torch.stack([head.judge(features).maps[0] for _ in range(3)])

    usual = head.judge(features).maps[0]
    statistics = {name: value.clone() for name, value in head.module.named_buffers()}
    first = opinions(0)
    assert not torch.equal(first[0], first[1])
    assert torch.equal(first, opinions(0))
    assert not torch.equal(first, opinions(1))
    assert torch.equal(head.judge(features).maps[0], usual)
    assert all(torch.equal(value, statistics[name]) for name, value in head.module.named_buffers())


def test_features_stay_after_an_error(head: SegmentationHead) -> None:
    with pytest.raises(KeyError), dropping(head):
        raise KeyError
    assert not any(layer.training for layer in head.module.modules())


def test_which_networks_drop_features() -> None:
    for name, count in (("mobilenet_v3_small", 1), ("resnet18", 0)):
        layers = dropping_layers(make_network("classification", name, ("A", "B"), 32))
        assert [type(layer) for layer in layers] == [nn.Dropout] * count


def test_the_image_is_the_region_in_classification() -> None:
    said = torch.tensor([[[0.25, 0.75], [1, 0]], [[0.5, 0.5], [0, 1]]])
    opinions = [ClassificationPrediction(rows, NONE.expand(2, 3)) for rows in said]
    assert torch.stack(regions_of(opinions)).tolist() == said.transpose(0, 1)[:, None].tolist()


def test_each_pixel_is_a_region_in_segmentation() -> None:
    logits = torch.tensor([[2.0, 0, 1], [0, 0, 1]]).view(1, 2, 1, 3)
    (found,) = regions_of([SegmentationPrediction(each, NONE, 3) for each in (logits, -logits)])
    assert found.shape == (3, 2, 2)
    assert found[0, 0].tolist() == pytest.approx(torch.tensor([2.0, 0]).softmax(0).tolist())
    assert found[0, 1].tolist() == pytest.approx(found[0, 0].flip(0).tolist())
    assert found[2].flatten().tolist() == pytest.approx([0.5] * 4)


def boxes(places: list[list[float]]) -> DetectionHeadPrediction:
    vectors = [torch.tensor(places)]
    candidates = BoxCandidates.of(vectors, background=0)
    nothing = [torch.zeros(0)]
    detected = Detected(candidates, NONE, nothing, nothing, nothing)
    return DetectionHeadPrediction(
        candidates.regions(), NONE, detected, 8, [(8, 8)], places=vectors
    )


def test_the_same_boxes_are_compared() -> None:
    # By confidence alone, each opinion would have another order of the boxes.
    one = boxes([[0.01, 0.02], [0.9, 0.1], [0.2, 0.2]])
    other = boxes([[0.01, 0.02], [0.3, 0.1], [0.6, 0.2]])
    (found,) = regions_of([one, other])
    assert found.shape == (2, 2, 2)  # the first place is below 0.05 in the mean
    assert found[0].flatten().tolist() == pytest.approx([0.9, 0.1, 0.75, 0.25])
    assert found[1].flatten().tolist() == pytest.approx([0.5, 0.5, 0.75, 0.25])


def test_an_image_without_confident_boxes_has_one_region() -> None:
    (found,) = regions_of([boxes([[0.0, 0.0], [0.01, 0.0]])] * 2)
    assert found.tolist() == [[[1, 0], [1, 0]]]
