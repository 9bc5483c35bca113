from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision.models
from support.rectangles import Rectangles
from torch import Tensor

from cdal.models import (
    DetectionNetwork,
    Detections,
    Manifest,
    ModelError,
    load_network,
    make_network,
)
from cdal.models.detection.architectures import DETECTORS
from cdal.models.detection.family import AsPrepared
from cdal.models.detection.pyramid import FasterRcnn
from cdal.models.detection.regions import MAX_REGIONS, MIN_CONFIDENCE, BoxCandidates
from cdal.models.recipe import Recipe

SIZES = {"ssd300_vgg16": 300}

CLASSES = ("cat", "dog", "owl")


@cache
def network(name: str, classes: tuple[str, ...] = CLASSES) -> DetectionNetwork:
    """A detector at its smallest size; do not change it."""
    made = make_network("detection", name, classes, SIZES.get(name, 64), pretrained=False)
    assert isinstance(made, DetectionNetwork)
    return made


def prepared(made: DetectionNetwork, count: int) -> Tensor:
    return torch.stack([made.prepare(image) for image, _ in Rectangles(count).examples])


@pytest.mark.parametrize("name", DETECTORS)
def test_every_detector_learns_from_images_with_and_without_boxes(name: str) -> None:
    made = network(name)
    targets = [torch.tensor([[4.0, 8.0, 40.0, 50.0, 2.0]]), torch.zeros(0, 5)]
    made.module.train()
    loss = made.objective(torch.ones(3), Recipe())(prepared(made, 2).float(), targets)
    torch.autograd.backward(loss)
    made.module.eval()
    assert loss.isfinite()
    assert all(
        p.requires_grad and p.grad is not None and p.grad.isfinite().all()
        for p in made.module.parameters()
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in DETECTORS if name not in SIZES])
def test_images_without_boxes_lower_the_loss(name: str) -> None:
    manifest = Manifest("detection", name, CLASSES, 64, 0, False)
    made = DetectionNetwork.make(manifest, torch.device("cpu"))
    batch = prepared(made, 2).float()
    optimiser = torch.optim.SGD(made.module.parameters(), lr=0.01)
    objective = made.objective(torch.zeros(3), Recipe())
    made.module.train()
    losses = []
    for _ in range(5):
        loss = objective(batch, [torch.zeros(0, 5)] * 2)
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        optimiser.step()
        losses.append(float(loss.detach()))
    assert 0 < losses[-1] < losses[0]


def test_there_are_never_more_negatives_than_anchors() -> None:
    made = network("ssdlite320_mobilenet_v3_large")
    corners = torch.rand((200, 2, 2), generator=torch.Generator().manual_seed(0)) * 48
    boxes = torch.cat([corners.amin(1), corners.amax(1) + 16, torch.zeros(200, 1)], 1)
    made.module.train()
    loss = made.objective(torch.ones(3), Recipe())(
        prepared(made, 2).float(), [boxes, torch.zeros(0, 5)]
    )
    made.module.eval()
    assert loss.isfinite()


@pytest.mark.parametrize("name", DETECTORS)
def test_regions_are_class_vectors_before_non_maximum_suppression(name: str) -> None:
    made = network(name)
    prediction = made.predict(prepared(made, 2))
    assert len(prediction) == len(prediction.regions) == 2
    assert prediction.features.ndim == 2
    background = DETECTORS[name].family.background
    for vectors in prediction.regions:
        assert vectors.dtype == torch.float32
        assert 1 <= len(vectors) <= MAX_REGIONS
        assert vectors.shape[1] == 3
        assert (vectors >= 0).all()
        # A softmax lacks the background's share; sigmoids are independent.
        assert (vectors <= 1).all() if background == 0 else (vectors.sum(1) <= 1 + 1e-6).all()
        scores = vectors.amax(1) if background == 0 else vectors.sum(1)
        assert torch.allclose(scores, scores.sort(descending=True).values, atol=1e-6)


@pytest.mark.parametrize("name", DETECTORS)
def test_findings_match_torchvisions_own_forward_pass(name: str) -> None:
    made = network(name)
    batch = prepared(made, 2)
    findings = made.predict(batch).findings()
    with torch.inference_mode():
        theirs = made.module(list(made.normalise(batch)))
    for ours, own in zip(findings, theirs, strict=True):
        assert isinstance(ours, Detections)
        side = made.image_size
        background = DETECTORS[name].family.background
        assert torch.allclose(ours.boxes * side, own["boxes"], atol=1e-3)
        assert torch.equal(ours.labels, own["labels"] - background)
        assert torch.allclose(ours.confidences, own["scores"])


@pytest.mark.parametrize(
    "name",
    [name for name in DETECTORS if name != "ssdlite_efficientnet_lite0"],  # test_efficientnet.py
)
def test_imagenet_weights_of_its_backbone_are_loaded(name: str) -> None:
    backbone = DETECTORS[name].backbone
    assert backbone is not None
    with torch.device("meta"):  # names and shapes without values
        shapes = torchvision.models.get_model(backbone, weights=None).state_dict()
    weights = {
        key: torch.tensor(1000.0 + number).expand(tensor.shape)
        for number, (key, tensor) in enumerate(shapes.items())
    }
    manifest = Manifest("detection", name, CLASSES, SIZES.get(name, 64), 1, pretrained=True)
    made = DetectionNetwork.make(manifest, torch.device("cpu"), weights)
    own = {float(tensor.flatten()[-1]) for tensor in made.module.state_dict().values()}
    left = {key.split(".")[0] for key, tensor in weights.items() if float(tensor.max()) not in own}
    assert left in ({"classifier"}, {"fc"})  # the classification layers


@pytest.mark.parametrize(
    ("name", "of_classes"),
    [
        ("ssdlite320_mobilenet_v3_large", 12),  # weight and bias of the class scores on six maps
        ("ssd300_vgg16", 12),
        ("fasterrcnn_mobilenet_v3_large_fpn", 4),
        ("retinanet_resnet50_fpn_v2", 2),
    ],
)
def test_weights_of_a_whole_detector_are_loaded_except_for_the_classes(
    name: str, of_classes: int, tmp_path: Path
) -> None:
    """Even if torchvision builds other layers for pretrained backbones."""
    theirs = torchvision.models.get_model(name, weights=None, weights_backbone=None, num_classes=91)
    torch.save(theirs.state_dict(), tmp_path / "theirs.pth")
    made = make_network(
        "detection", name, CLASSES, SIZES.get(name, 64), weights_file=tmp_path / "theirs.pth"
    )
    own = made.module.state_dict()
    different = [key for key, t in theirs.state_dict().items() if own[key].shape != t.shape]
    assert len(different) == of_classes
    assert all(
        torch.equal(own[key], t) for key, t in theirs.state_dict().items() if key not in different
    )


def test_weights_of_an_earlier_version_are_kept(tmp_path: Path) -> None:
    """It started from scratch, and so has other layers than a pretrained one."""
    earlier = make_network("detection", None, CLASSES, 64, seed=1, pretrained=False)
    earlier.save(tmp_path / "earlier")
    own = tmp_path / "earlier/weights.safetensors"
    made = make_network("detection", None, CLASSES, 64, seed=2, weights_file=own)
    assert made.manifest.pretrained
    made.save(tmp_path / "made")
    loaded = load_network(tmp_path / "made", torch.device("cpu"), [*CLASSES, "bee"])
    before = earlier.module.state_dict()
    after = loaded.module.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == set(loaded.class_rows())


def class_outputs(made: DetectionNetwork) -> dict[str, Tensor]:
    """The outputs of the layers with rows for classes, by class, for fixed features."""
    draws = torch.Generator().manual_seed(0)
    model: Any = made.module
    with torch.inference_mode():
        if isinstance(DETECTORS[made.manifest.architecture].family, FasterRcnn):
            predictor = model.roi_heads.box_predictor
            features = torch.rand((5, predictor.cls_score.in_features), generator=draws)
            logits, sides = predictor(features)
            table = torch.cat([logits[:, :, None], sides.view(5, -1, 4)], 2)
        else:
            side = made.image_size
            maps = model.backbone(torch.rand((1, 3, side, side), generator=draws))
            table = model.head(list(maps.values()))["cls_logits"][0, :, :, None]
    names = ("background", *made.classes)[-table.shape[1] :]
    return {name: table[:, i] for i, name in enumerate(names)}


def test_weights_of_something_else_are_refused() -> None:
    manifest = Manifest("detection", "ssdlite320_mobilenet_v3_large", CLASSES, 64, 1, True)
    with pytest.raises(ModelError, match="fit ssdlite320_mobilenet_v3_large"):
        DetectionNetwork.make(manifest, torch.device("cpu"), {"a": torch.zeros(3)})


@pytest.mark.parametrize(
    ("name", "classes"),
    [
        # One class is removed, one is new, and the others are reordered.
        *((name, ("owl", "bee", "cat")) for name in DETECTORS),
        ("ssdlite320_mobilenet_v3_large", ("owl", "cat", "dog")),
        ("ssdlite320_mobilenet_v3_large", ("dog",)),
        ("ssdlite320_mobilenet_v3_large", ("bee", "cat", "dog", "owl")),
    ],
)
def test_classes_keep_their_weights_by_name(name: str, classes: Sequence[str]) -> None:
    before = class_outputs(network(name))
    after = class_outputs(network(name).with_classes(classes))
    assert {*classes} <= {*after} <= {*classes, "background"}
    for known in before.keys() & after.keys():
        assert torch.allclose(before[known], after[known], atol=1e-5)


def test_a_renamed_class_keeps_its_weights() -> None:
    made = network("fasterrcnn_mobilenet_v3_large_fpn")
    renamed = made.with_classes(("cat", "wolf", "owl"), {"wolf": ("dog",)})
    assert torch.allclose(class_outputs(made)["dog"], class_outputs(renamed)["wolf"])


def test_the_most_confident_vectors_come_first() -> None:
    vectors = torch.tensor([[0.7, 0.1, 0.2], [0.1, 0.5, 0.4], [0.97, 0.01, 0.02], [0.4, 0.3, 0.3]])
    (regions,) = BoxCandidates.of([vectors], background=1).regions()
    assert regions.tolist() == vectors[[1, 3, 0], 1:].tolist()


def test_without_background_the_confidence_is_that_of_the_best_class() -> None:
    vectors = torch.tensor([[0.1, 0.2], [0.9, 0.01], [0.3, 0.3]])
    candidates = BoxCandidates.of([vectors], background=0)
    assert candidates.regions()[0].tolist() == vectors[[1, 2, 0]].tolist()
    assert candidates.regions(0.25)[0].tolist() == vectors[[1, 2]].tolist()
    assert candidates.regions(0.25, keep_background=True)[0].tolist() == vectors[[1, 2]].tolist()


def test_background_is_kept_as_the_last_class() -> None:
    vectors = torch.tensor([[0.7, 0.1, 0.2], [0.1, 0.5, 0.4]])
    (regions,) = BoxCandidates.of([vectors], background=1).regions(keep_background=True)
    assert regions.tolist() == vectors[[1, 0]][:, [1, 2, 0]].tolist()


def test_the_most_confident_vector_is_always_kept() -> None:
    vectors = torch.full((5, 2), MIN_CONFIDENCE / 10)
    vectors[3] = MIN_CONFIDENCE / 5
    assert BoxCandidates.of([vectors], 0).regions()[0].tolist() == vectors[[3]].tolist()


def test_the_number_of_vectors_is_limited() -> None:
    candidates = BoxCandidates.of([torch.full((1000, 2), 0.5)], 0)
    assert len(candidates.vectors[0]) == len(candidates.regions()[0]) == MAX_REGIONS


def test_images_are_neither_resized_nor_normalised_again() -> None:
    images = torch.rand(2, 3, 40, 40)
    listed, targets = AsPrepared()(list(images), [{}, {}])
    assert torch.equal(listed.tensors, images)
    assert listed.image_sizes == [(40, 40)] * 2
    assert targets == [{}, {}]


@pytest.mark.parametrize("name", DETECTORS)
def test_anchors_cover_the_image_whatever_its_size(name: str) -> None:
    """The largest anchor is about as long as the image, the smallest at most a fifth of it."""
    made = network(name)
    model: Any = made.module
    maps = model.backbone(torch.zeros(1, 3, made.image_size, made.image_size))
    side = made.image_size
    listed, _ = model.transform([torch.zeros(3, side, side)])
    generator = model.rpn.anchor_generator if hasattr(model, "rpn") else model.anchor_generator
    anchors = generator(listed, list(maps.values()))[0]
    longest = (anchors[:, 2:] - anchors[:, :2]).amax(1)
    assert longest.max() >= 0.9 * side
    assert longest.min() <= side / 5 + 1e-3


def test_in_mixed_precision_boxes_are_computed_in_float32() -> None:
    made = network("retinanet_resnet50_fpn_v2")
    images = made.normalise(prepared(made, 1))
    model: Any = made.module
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        maps = list(model.backbone(images).values())
        outputs = model.head(maps)
    assert {m.dtype for m in maps} == {o.dtype for o in outputs.values()} == {torch.float32}
