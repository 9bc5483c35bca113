from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support.rectangles import CLASSES, Rectangles, small_detector
from torch import Tensor

from cdal.models import (
    DetectionNetwork,
    Detections,
    FitReport,
    ModelError,
    Recipe,
    Stopped,
    fit,
    load_network,
    make_network,
)
from cdal.models.detection.family import MAX_BOXES, Detected
from cdal.models.detection.network import DetectionPrediction
from cdal.models.detection.regions import BoxCandidates


@pytest.fixture(scope="module")
def untrained() -> DetectionNetwork:
    return small_detector()


@pytest.fixture(scope="module")
def learnt() -> tuple[DetectionNetwork, FitReport]:
    """A network that knows red and blue rectangles (do not change it), and its training report."""
    network = small_detector(image_size=96)
    return network, fit(network, Rectangles(48), None, Recipe(epochs=30, batch_size=8))


def one(target: list[list[float]]) -> Tensor:
    return torch.tensor(target).view(-1, 5)


def detected(rows: list[list[float]], size: int) -> DetectionPrediction:
    """A prediction for one image, from rows of left, top, right, bottom, class and score."""
    table = torch.tensor(rows).view(-1, 6)
    found = Detected(
        candidates=BoxCandidates.of([torch.zeros(1, 2)], background=0),
        features=torch.zeros(1, 4),
        boxes=[table[:, :4]],
        labels=[table[:, 4].long()],
        scores=[table[:, 5]],
    )
    return DetectionPrediction(found.candidates.regions(), found.features, found, size)


def test_it_recognises_unseen_rectangles(learnt: tuple[DetectionNetwork, FitReport]) -> None:
    held_out = Rectangles(32, seed=1)
    before = small_detector(image_size=96).evaluate(held_out)
    after = learnt[0].evaluate(held_out)
    assert before.main_name == after.main_name == "map_50"
    assert before.main < 0.1
    assert after.main > 0.6
    assert after.values["map"] < after.main
    assert learnt[1].losses[-1] < learnt[1].losses[0]


def test_boxes_are_near_the_rectangles(
    learnt: tuple[DetectionNetwork, FitReport],
) -> None:
    network, _ = learnt
    found = []
    for image, target in Rectangles(8, seed=2).examples:
        prediction = network.predict(network.prepare(image)[None])
        (finding,) = prediction.findings()
        assert isinstance(finding, Detections)
        pixels = finding.boxes * torch.tensor([128.0, 96.0, 128.0, 96.0])
        for row in target:
            near = (pixels - row[:4]).abs().amax(1) < 16
            found.append(bool((near & (finding.labels == row[4]))[:10].any()))
    assert sum(found) >= 0.7 * len(found)


def test_metrics_count_boxes_per_class(learnt: tuple[DetectionNetwork, FitReport]) -> None:
    data = Rectangles(8, seed=3)
    counts = torch.cat([target for _, target in data.examples])[:, 4].long().bincount()
    metrics = learnt[0].evaluate(data)
    assert [metrics.per_class[name].count for name in CLASSES] == counts.tolist()
    assert metrics.images == 8
    assert [sum(row) for row in metrics.confusion] == counts.tolist()
    scores = [score.score for score in metrics.per_class.values()]
    assert metrics.main == pytest.approx(sum(s for s in scores if s is not None) / 2)


def test_targets_are_scaled_to_the_square(untrained: DetectionNetwork) -> None:
    # From 128 wide and 96 high to 64 by 64: x by a half, y by two thirds.
    target = untrained.prepare_target(one([[64, 48, 128, 96, 1]]), 96, 128)
    assert target[0].tolist() == pytest.approx([32, 32, 64, 64, 1])


def test_a_target_may_have_no_boxes(untrained: DetectionNetwork) -> None:
    target = untrained.prepare_target(one([]), 96, 128)
    assert target.shape == (0, 5)
    assert untrained.count_classes(target).tolist() == [0, 0]


def test_boxes_are_counted_by_class(untrained: DetectionNetwork) -> None:
    rows = one([[0, 0, 9, 9, 1], [5, 5, 20, 20, 1], [0, 0, 5, 5, 0]])
    assert untrained.count_classes(rows).tolist() == [1, 2]


@pytest.mark.parametrize("label", [2.0, -1.0, 0.5])
def test_refuses_an_unknown_class(untrained: DetectionNetwork, label: float) -> None:
    with pytest.raises(ModelError, match=f"class index {label:g}, .* 2 classes"):
        untrained.prepare_target(one([[0, 0, 9, 9, label]]), 96, 128)


@pytest.mark.parametrize(
    "target",
    [torch.zeros(5), torch.zeros(2, 4), torch.tensor([[0.0, 0.0, torch.nan, 9.0, 0.0]])],
)
def test_refuses_anything_but_boxes(untrained: DetectionNetwork, target: Tensor) -> None:
    with pytest.raises(ModelError, match="left, top, right, bottom and class"):
        untrained.prepare_target(target, 96, 128)


def test_findings_are_shares_of_the_image() -> None:
    rows = [[16.0, 0.0, 48.0, 64.0, 1.0, 0.75], [-4.0, 32.0, 32.0, 70.0, 0.0, 0.5]]
    (finding,) = detected(rows, 64).findings()
    assert isinstance(finding, Detections)
    assert finding.boxes.tolist() == [[0.25, 0, 0.75, 1], [0, 0.5, 0.5, 1]]
    assert finding.labels.tolist() == [1, 0]
    assert finding.confidences.tolist() == [0.75, 0.5]


def test_an_image_without_findings() -> None:
    (finding,) = detected([], 64).findings()
    assert isinstance(finding, Detections)
    assert finding.boxes.shape == (0, 4)
    assert finding.labels.dtype == torch.int64


def test_findings_are_sorted_and_limited(learnt: tuple[DetectionNetwork, FitReport]) -> None:
    network, _ = learnt
    batch = torch.stack([network.prepare(image) for image, _ in Rectangles(4).examples])
    for finding in network.predict(batch).findings():
        assert isinstance(finding, Detections)
        assert 1 <= len(finding.boxes) <= MAX_BOXES
        assert (finding.confidences.diff() <= 0).all()
        assert ((finding.boxes >= 0) & (finding.boxes <= 1)).all()
        assert set(finding.labels.tolist()) <= {0, 1}


def test_an_image_does_not_depend_on_its_batch(learnt: tuple[DetectionNetwork, FitReport]) -> None:
    network, _ = learnt
    batch = torch.stack([network.prepare(image) for image, _ in Rectangles(3).examples])
    together, alone = network.predict(batch), network.predict(batch[1:2])
    assert torch.allclose(together.features[1], alone.features[0], atol=1e-4)
    assert torch.allclose(together.regions[1], alone.regions[0], atol=1e-4)


def test_a_loaded_network_predicts_the_same(
    learnt: tuple[DetectionNetwork, FitReport], tmp_path: Path
) -> None:
    network, _ = learnt
    network.save(tmp_path / "version")
    loaded = load_network(tmp_path / "version", torch.device("cpu"))
    assert isinstance(loaded, DetectionNetwork)
    batch = torch.stack([network.prepare(image) for image, _ in Rectangles(2).examples])
    ours, theirs = network.predict(batch), loaded.predict(batch)
    assert torch.equal(ours.features, theirs.features)
    for a, b in zip(ours.findings(), theirs.findings(), strict=True):
        assert isinstance(a, Detections)
        assert isinstance(b, Detections)
        assert torch.equal(a.boxes, b.boxes)
        assert torch.equal(a.confidences, b.confidences)


def test_reordered_classes_are_found_under_their_new_index(
    learnt: tuple[DetectionNetwork, FitReport], tmp_path: Path
) -> None:
    network, _ = learnt
    network.save(tmp_path / "version")
    loaded = load_network(tmp_path / "version", torch.device("cpu"), ("blue", "red"))
    batch = torch.stack([network.prepare(image) for image, _ in Rectangles(1).examples])
    (ours,), (theirs,) = (n.predict(batch).findings() for n in (network, loaded))
    assert isinstance(ours, Detections)
    assert isinstance(theirs, Detections)
    assert torch.allclose(ours.confidences, theirs.confidences, atol=1e-5)
    assert torch.equal(ours.labels, 1 - theirs.labels)


def test_training_and_measuring_without_any_boxes() -> None:
    network = small_detector()
    negatives = [(image, one([])) for image, _ in Rectangles(3).examples]
    report = fit(network, negatives, negatives, Recipe(epochs=2, batch_size=2))
    assert report.metrics is not None
    assert report.metrics.values == {"map_50": 0, "map": 0}
    assert [score.score for score in report.metrics.per_class.values()] == [None, None]


def test_training_on_a_single_image() -> None:
    report = fit(small_detector(), Rectangles(1), None, Recipe(epochs=1, batch_size=1))
    assert len(report.losses) == 1


def test_training_stops_on_request() -> None:
    network = small_detector()
    answers = iter([False] * 9)
    with pytest.raises(Stopped):
        fit(
            network,
            Rectangles(8),
            None,
            Recipe(epochs=50, batch_size=8),
            stop=lambda: next(answers, True),
        )
    assert not network.module.training


def test_the_same_seed_gives_the_same_weights() -> None:
    recipe = Recipe(epochs=1, batch_size=4, seed=3)
    networks = [small_detector(), small_detector()]
    for network in networks:
        fit(network, Rectangles(8), None, recipe)
    first, second = (network.module.state_dict() for network in networks)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_measuring_needs_images(untrained: DetectionNetwork) -> None:
    with pytest.raises(ModelError, match="no labelled images to measure"):
        untrained.evaluate([])


def test_ssd300_accepts_only_its_own_size() -> None:
    with pytest.raises(ModelError, match=r"ssd300_vgg16 .*300, not 320"):
        make_network("detection", "ssd300_vgg16", CLASSES, 320, pretrained=False)
