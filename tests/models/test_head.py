"""Heads of all three tasks, on the embedded backbone."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from cdal.models import (
    IGNORED,
    Detections,
    Manifest,
    ModelError,
    Recipe,
    Segmentation,
    Stopped,
    fit,
    load_network,
    make_network,
)
from cdal.models.backbone import DEFAULT_BACKBONE, Backbone, open_backbone
from cdal.models.head import HeadNetwork

CPU = torch.device("cpu")
TASKS = ("classification", "segmentation", "detection")
SIDE = 96
CLASSES = ("dark", "bright")


class Squares:
    """Images of 48 rows and 64 columns: a square that is darker or brighter than the rest.

    There are fourteen: two brightnesses at seven positions.
    """

    def __init__(self, task: str, images: int = 14, first: int = 0) -> None:
        self._task, self._images, self._first = task, images, first

    def __len__(self) -> int:
        return self._images

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        number = index + self._first
        label, left = number % 2, 4 * (number % 7)
        image = torch.full((3, 48, 64), 120, dtype=torch.uint8)
        image[:, 12:36, left : left + 24] = (20, 230)[label]
        if self._task == "classification":
            return image, torch.tensor(label)
        if self._task == "detection":
            return image, torch.tensor([[left, 12.0, left + 24, 36, label]])
        mask = torch.full((48, 64), IGNORED, dtype=torch.uint8)
        mask[:, :32], mask[:, 32:] = 0, 1
        return image, mask


def network(task: str, classes: tuple[str, ...] = CLASSES) -> HeadNetwork:
    made = make_network(task, DEFAULT_BACKBONE, classes, SIDE)
    assert isinstance(made, HeadNetwork)
    return made


@pytest.fixture(scope="module", autouse=True)
def backbone() -> Backbone:
    """Held, so that it is read once."""
    return open_backbone(DEFAULT_BACKBONE, CPU)


@pytest.fixture(scope="module", params=TASKS)
def trained(request: pytest.FixtureRequest) -> HeadNetwork:
    """A network of each task, not to be changed."""
    made = network(request.param)
    fit(made, Squares(request.param), None, Recipe(epochs=30))
    return made


def batch_of(made: HeadNetwork, images: int = 3) -> Tensor:
    data = Squares(made.task, images)
    return torch.stack([made.prepare(data[i][0]) for i in range(images)])


class TestTraining:
    def test_it_learns(self, trained: HeadNetwork) -> None:
        assert trained.evaluate(Squares(trained.task, 4, first=14)).main > 0.8

    def test_the_backbone_stays_as_it_is(self, trained: HeadNetwork, backbone: Backbone) -> None:
        assert trained.backbone is backbone
        before = backbone.record.sha256
        assert open_backbone(DEFAULT_BACKBONE, CPU).record.sha256 == before
        assert not any(p.requires_grad for p in backbone.module.parameters())

    def test_features_are_kept(self, trained: HeadNetwork, monkeypatch: pytest.MonkeyPatch) -> None:
        batch = batch_of(trained)
        first = trained.predict(batch)
        monkeypatch.setattr(trained, "extract", lambda _: pytest.fail("it looked again"))
        again = trained.predict(batch)
        assert all(torch.equal(a, b) for a, b in zip(first.regions, again.regions, strict=True))

    @pytest.mark.parametrize("task", TASKS)
    def test_the_same_seed_gives_the_same_weights(self, task: str) -> None:
        made = [network(task) for _ in range(2)]
        for each in made:
            report = fit(each, Squares(task, 4), Squares(task, 2), Recipe(epochs=2, seed=3))
            assert report.metrics is not None
            assert report.held_out == (report.metrics.main,)
            assert len(report.losses) == report.plan.epochs
        first, second = (each.module.state_dict() for each in made)
        assert all(torch.equal(first[name], second[name]) for name in first)

    @pytest.mark.parametrize("task", TASKS)
    def test_it_stops(self, task: str) -> None:
        with pytest.raises(Stopped):
            fit(network(task), Squares(task), None, Recipe(), stop=lambda: True)

    @pytest.mark.parametrize("task", TASKS)
    def test_one_image_is_enough(self, task: str) -> None:
        report = fit(network(task), Squares(task, 1), None, Recipe(epochs=2))
        assert report.images == 1

    def test_progress_rises_to_the_end(self) -> None:
        told: list[float] = []
        fit(
            network("segmentation"),
            Squares("segmentation"),
            None,
            Recipe(epochs=3),
            lambda progress: told.append(progress.share),
        )
        assert told == sorted(told)
        assert told[-1] == pytest.approx(1)

    @pytest.mark.parametrize("task", ["segmentation", "detection"])
    def test_maps_are_learnt_with_a_core_to_spare(self, task: str) -> None:
        seen: set[int] = set()
        before = torch.get_num_threads()
        torch.set_num_threads(2)
        try:
            fit(
                network(task),
                Squares(task, 2),
                None,
                Recipe(epochs=1),
                lambda progress: seen.add(torch.get_num_threads()) if progress.epoch else None,
            )
            assert torch.get_num_threads() == 2
        finally:
            torch.set_num_threads(before)
        assert seen == {1}

    def test_no_image(self) -> None:
        with pytest.raises(ModelError, match="no labelled images"):
            fit(network("detection"), Squares("detection", 0), None, Recipe())


class TestSaving:
    def test_it_saves_the_head_alone(self, trained: HeadNetwork, tmp_path: Path) -> None:
        trained.save(tmp_path / "version")
        assert (tmp_path / "version/weights.safetensors").stat().st_size < 2**20
        kept = json.loads((tmp_path / "version/manifest.json").read_text())["backbone"]
        assert kept["name"] == DEFAULT_BACKBONE
        assert kept["sha256"] == trained.backbone.record.sha256
        loaded = load_network(tmp_path / "version", CPU)
        batch = batch_of(trained)
        pairs = zip(trained.predict(batch).regions, loaded.predict(batch).regions, strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)

    def test_labels_added_renamed_and_moved(self, trained: HeadNetwork, tmp_path: Path) -> None:
        trained.save(tmp_path / "version")
        other = load_network(
            tmp_path / "version", CPU, ("new", "light", "dark"), {"light": ["bright"]}
        )
        batch = batch_of(trained)
        old = trained.predict(batch).features
        assert torch.equal(other.predict(batch).features, old)
        for name, rows in trained.class_rows().items():
            assert rows.groups == 1
            before, after = trained.module.state_dict()[name], other.module.state_dict()[name]
            assert torch.equal(after[2], before[0])
            assert torch.equal(after[1], before[1])

    def test_another_backbone_is_refused(self, trained: HeadNetwork, tmp_path: Path) -> None:
        record = replace(trained.backbone.record, sha256="0" * 64)
        trained.save(tmp_path / "version")
        manifest = replace(trained.manifest, backbone=record)
        (tmp_path / "version/manifest.json").write_text(manifest.to_json())
        (tmp_path / "version/weights.sha256").unlink()
        with pytest.raises(ModelError, match="other weights"):
            load_network(tmp_path / "version", CPU)

    @pytest.mark.parametrize("damage", [{"name": 3}, {"sha256": None}, {"channels": 7}, {"x": 1}])
    def test_a_damaged_record(self, damage: dict[str, object]) -> None:
        data = json.loads(network("classification").manifest.to_json())
        data["backbone"] |= damage
        with pytest.raises(ModelError, match="backbone is not readable"):
            Manifest.from_json(json.dumps(data))


class TestPredictions:
    def test_regions_are_probabilities_of_the_image_alone(self, trained: HeadNetwork) -> None:
        found = trained.predict(batch_of(trained))
        assert len(found) == len(found.findings()) == len(found.regions) == 3
        for regions in found.regions:
            assert regions.shape[-1] == len(CLASSES)
            if trained.task == "segmentation":
                assert len(regions) == 9 * 12  # 72 rows and 96 columns
                assert torch.allclose(regions.sum(1), torch.ones(len(regions)), atol=1e-4)
        assert found.features.isfinite().all()

    def test_a_wide_image_and_a_tall_one(self) -> None:
        made = network("segmentation")
        image = Squares("segmentation")[1][0]
        alone = made.predict(made.prepare(image)[None])
        both = made.predict(torch.stack([made.prepare(i) for i in (image.mT, image)]))
        labels = both.findings()
        assert isinstance(labels[0], Segmentation)
        assert isinstance(labels[1], Segmentation)
        assert labels[0].labels.shape == (96, 72)
        assert labels[1].labels.shape == (72, 96)
        assert torch.allclose(both.regions[1], alone.regions[0], atol=1e-3)

    def test_boxes_are_shares_of_the_image(self, trained: HeadNetwork) -> None:
        if trained.task != "detection":
            return
        found = trained.predict(batch_of(trained)).findings()[1]
        assert isinstance(found, Detections)
        assert found.labels[0] == 1
        left, top, right, bottom = found.boxes[0].tolist()
        assert (left, right) == pytest.approx((4 / 64, 28 / 64), abs=0.12)
        assert (top, bottom) == pytest.approx((12 / 48, 36 / 48), abs=0.12)


class TestNames:
    def test_a_network_that_timm_has_not(self) -> None:
        with pytest.raises(ModelError, match="timm has no network"):
            make_network("classification", "timm:nothing", CLASSES)

    @pytest.mark.parametrize(("asked", "side"), [(33, 32), (100, 96), (1000, 992)])
    def test_a_side_that_strides_do_not_divide(self, asked: int, side: int) -> None:
        made = make_network("classification", DEFAULT_BACKBONE, CLASSES, asked)
        assert made.image_size == side

    def test_from_scratch(self) -> None:
        with pytest.raises(ModelError, match="needs its published weights"):
            make_network("classification", DEFAULT_BACKBONE, CLASSES, pretrained=False)

    @pytest.mark.parametrize("task", ["classification", "segmentation"])
    def test_one_class(self, task: str) -> None:
        with pytest.raises(ModelError, match="needs at least two classes"):
            network(task, ("only",))


def test_a_head_learns_what_people_do_not_agree_about() -> None:
    """Of the dark images, a quarter of the votes say bright."""
    disputed = torch.tensor([0.75, 0.25])

    class Disputed(Squares):
        def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
            image, target = super().__getitem__(index)
            return image, disputed if target == 0 else target

    plain, images = network("classification"), Squares("classification")
    fit(plain, images, None, Recipe())
    head = network("classification")
    report = fit(head, Disputed("classification"), Disputed("classification"), Recipe())
    assert report.metrics is not None
    assert report.metrics.main == 1  # by the class with the most votes
    dark = head.prepare(images[0][0])[None]
    certain, doubtful = (float(made.predict(dark).probabilities[0, 0]) for made in (plain, head))
    assert 0.5 < doubtful < certain - 0.05
    with pytest.raises(ModelError, match="shares"):
        head.prepare_target(torch.tensor([0.75, 0.75]), 48, 64)
