"""Mask R-CNN for a project's classes, small enough for a CPU."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torchvision.models
from support.touching import Pairs, make_mask_rcnn_small
from torch import Tensor

from cdal.export import ExportError, export
from cdal.mixture_kind import MixtureKind, means_of
from cdal.models import (
    BACKGROUND,
    IGNORED,
    ModelError,
    Recipe,
    Segmentation,
    WeightSources,
    checkpoint,
    choose_network,
    load_network,
    make_network,
)
from cdal.models.segmentation.architectures import MASK_RCNN
from cdal.models.segmentation.instances import FAMILY, InstanceNetwork
from cdal.models.segmentation.mask_rcnn import MaskRcnn

pytestmark = pytest.mark.slow

SIDE = 64
CLASSES = ("disc", "square", BACKGROUND)


@pytest.fixture(scope="module", autouse=True)
def shallow() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        make_mask_rcnn_small(patch)
        yield


def instance_network(classes: tuple[str, ...] = CLASSES) -> InstanceNetwork:
    network = make_network("segmentation", MASK_RCNN, classes, SIDE, pretrained=False)
    assert isinstance(network, InstanceNetwork)
    network.module.roi_heads.score_thresh = 0.0  # untrained, it is sure of nothing
    return network


@pytest.fixture(scope="module")
def network() -> InstanceNetwork:
    """Untrained; do not change it."""
    return instance_network()


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.stack([image for image, _ in Pairs(2, SIDE).examples])


def test_what_it_says_of_images(network: InstanceNetwork, images: Tensor) -> None:
    prediction = network.predict(images)
    assert len(prediction) == 2
    assert prediction.features.shape == (2, 256)
    for each in prediction.objects():
        assert each["masks"].shape == (len(each["scores"]), SIDE, SIDE)
        assert (each["scores"].diff() <= 0).all()
        assert set(each["labels"].tolist()) <= {0, 1}
    for finding in prediction.findings():
        assert isinstance(finding, Segmentation)
        assert finding.objects is not None
        assert finding.labels.shape == finding.objects.shape == (SIDE, SIDE)
        assert ((finding.objects > 0) == (finding.labels < 2)).all()


def test_its_regions_are_boxes_with_class_vectors(network: InstanceNetwork, images: Tensor) -> None:
    prediction = network.predict(images)
    assert [regions.shape[1] for regions in prediction.regions] == [3, 3]
    mixtures = MixtureKind("pseudo-label").mixtures(prediction)
    assert len(mixtures.present) == 2
    assert mixtures.present.any(1).all()
    assert means_of(prediction).probabilities.shape == (2, 3)


def test_all_of_it_learns(images: Tensor) -> None:
    network = instance_network()
    network.module.train()
    targets = [target for _, target in Pairs(2, SIDE).examples]
    loss = network.objective(torch.ones(3).double(), Recipe())(images.float(), targets)
    torch.autograd.backward(loss)
    assert torch.isfinite(loss)
    named = network.module.named_parameters()
    assert [name for name, values in named if values.grad is None] == []


def test_what_is_ignored_is_hidden(
    network: InstanceNetwork, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Tensor] = []

    def losses(_: MaskRcnn, __: object, shown: Tensor, wanted: list[dict[str, Tensor]]) -> object:
        seen.append(shown)
        assert [each["labels"].tolist() for each in wanted] == [[1], [1]]
        return {"loss": torch.zeros(())}

    monkeypatch.setattr(MaskRcnn, "losses", losses)
    target = torch.zeros((2, SIDE, SIDE), dtype=torch.int16)
    target[0], target[0, :8], target[:, 30:40, 30:40] = 2, IGNORED, 0
    target[1, 30:40, 30:40] = 1
    network.objective(torch.ones(3).double(), Recipe())(images, [target] * 2)
    assert (seen[0][:, :, :8] == 0).all()
    assert (seen[0][:, :, 8:] != 0).all(1).float().mean() > 0.9


def test_measures_pixels_and_masks(
    network: InstanceNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two touching objects, the first is found."""
    data = Pairs(2, SIDE)
    targets = iter([target for _, target in data.examples])
    monkeypatch.setattr(
        network, "predict", lambda batch: Found([next(targets) for _ in range(len(batch))])
    )
    metrics = network.evaluate(data)
    assert metrics.main_name == "miou"
    assert metrics.values["mask_map_50"] == pytest.approx(0.5, abs=0.02)
    for name, (_, target) in zip(CLASSES, data.examples, strict=False):
        found, there = (int(pixels.sum()) for pixels in (target[1] == 1, target[1] > 0))
        assert metrics.per_class[name].count == there
        assert metrics.per_class[name].score == pytest.approx(found / there)
    assert sum(map(sum, metrics.confusion)) == 2 * SIDE * SIDE


class Found:
    """A prediction of the first object of each image alone."""

    background = 2

    def __init__(self, targets: list[Tensor]) -> None:
        self._targets = targets

    def objects(self) -> list[dict[str, Tensor]]:
        return [
            {
                "masks": target[1][None] == 1,
                "labels": target[0][target[1] == 1][:1].long(),
                "scores": torch.tensor([0.9]),
            }
            for target in self._targets
        ]


def test_begins_with_the_weights_of_coco(network: InstanceNetwork) -> None:
    published = torchvision.models.get_model(MASK_RCNN, weights=None, weights_backbone=None)
    weights = published.state_dict()
    own = type(network).make(network.manifest, network.device, weights).module.state_dict()
    assert set(own) == set(weights)
    different = {name for name in own if not torch.equal(own[name], weights[name])}
    assert different == set(FAMILY.class_rows(network.module))


def test_what_it_knows_of_a_class_is_kept_by_name(network: InstanceNetwork) -> None:
    other = network.with_classes(("square", "ring", BACKGROUND))
    for name, rows in FAMILY.class_rows(network.module).items():
        before, after = (one.module.state_dict()[name] for one in (network, other))
        each = rows.each
        assert torch.equal(after[:each], before[:each])
        assert torch.equal(after[each : 2 * each], before[2 * each : 3 * each])
        assert not torch.equal(after[2 * each : 3 * each], before[each : 2 * each])
        assert torch.equal(after[3 * each :], before[3 * each :])


def test_it_is_loaded_as_it_was_saved(
    network: InstanceNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the file, which would have a hundred megabytes."""
    saved = network.manifest, network.module.state_dict()
    monkeypatch.setattr(checkpoint, "read", lambda _: saved)
    loaded = load_network(tmp_path, network.device)
    assert isinstance(loaded, InstanceNetwork)
    state = loaded.module.state_dict()
    assert all(torch.equal(state[name], values) for name, values in saved[1].items())


def test_its_masks_are_not_exported(network: InstanceNetwork, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="masks"):
        export(network, tmp_path / "new", "onnx")
    assert not (tmp_path / "new").exists()


def test_it_needs_a_background_and_objects(network: InstanceNetwork) -> None:
    with pytest.raises(ModelError, match="on a background"):
        make_network("segmentation", MASK_RCNN, ("disc", "square"), SIDE, pretrained=False)
    with pytest.raises(ModelError, match="learns objects"):
        network.prepare_target(torch.zeros((SIDE, SIDE), dtype=torch.uint8), SIDE, SIDE)
    wrong = torch.full((2, SIDE, SIDE), 3, dtype=torch.int16)
    with pytest.raises(ModelError, match="class index 3"):
        network.prepare_target(wrong, SIDE, SIDE)


def test_targets_are_resized_and_moved_with_their_images(network: InstanceNetwork) -> None:
    image, target = Pairs(1, 2 * SIDE).examples[0]
    image, target = network.prepare_example(image, target)
    assert target.dtype == torch.int16
    assert target[1].unique().tolist() == [0, 1, 2]
    assert int(network.count_classes(target).sum()) == SIDE**2
    draws = torch.Generator().manual_seed(0)
    moved, (changed,) = network.augment(image[None], [target], draws)
    assert moved.shape == (1, 3, SIDE, SIDE)
    assert changed.dtype == torch.int16
    assert set(changed[1].unique().tolist()) <= {0, 1, 2}
    assert ((changed[1] > 0) == (changed[0] < 2)).all()


@pytest.mark.parametrize(
    ("device", "objects", "there", "name"),
    [
        ("cuda", True, True, MASK_RCNN),
        ("cuda", True, False, "deeplabv3_resnet50"),
        ("cuda", False, True, "deeplabv3_resnet50"),
        ("cpu", True, True, "lraspp_mobilenet_v3_large"),
    ],
)
def test_it_is_the_default_on_a_gpu_where_its_weights_are(
    device: str, objects: bool, there: bool, name: str, tmp_path: Path
) -> None:
    if there:
        (tmp_path / "maskrcnn_resnet50_fpn_coco-bf2d0c1e.pth").write_bytes(b"weights")
    sources = WeightSources(folder=tmp_path)
    chosen = choose_network(
        "segmentation",
        torch.device(device),
        training="full",
        sources=sources,
        objects=objects,
    )
    assert chosen[0] == name
