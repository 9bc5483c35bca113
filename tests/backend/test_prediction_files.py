"""Predictions of image files, read back by the libraries that people read them with."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from label_studio_sdk.label_interface import LabelInterface
from PIL import Image
from pycocotools.coco import COCO
from torch import Tensor

from cdal.backend import prediction_files
from cdal.cli import main
from cdal.models import Detections, Finding, Prediction, Segmentation, make_network
from cdal.models.classification.network import ClassificationNetwork

CONFIG = {
    "detection": "RectangleLabels",
    "segmentation": "BrushLabels",
}


class Given(Prediction):
    def __init__(self, findings: list[Finding]) -> None:
        object.__setattr__(self, "given", findings)

    def findings(self) -> list[Finding]:
        return self.given  # type: ignore[attr-defined, no-any-return]


class GivenNetwork(ClassificationNetwork):
    """Finds the same in every image: a dog in its right half, at the bottom."""

    def __init__(self, task: str) -> None:
        made = make_network("classification", "resnet18", ("cat", "dog"), 32, pretrained=False)
        super().__init__(made.manifest, made.module, made.device)
        self.task = task  # type: ignore[misc]

    def predict(self, batch: Tensor) -> Given:
        if self.task == "detection":
            one: Finding = Detections(
                torch.tensor([[0.5, 0.5, 1, 1], [0, 0, 1, 1]]),
                torch.tensor([1, 0]),
                torch.tensor([0.9, 0.1]),
            )
        else:
            labels = torch.full((32, 32), 255, dtype=torch.uint8)
            labels[16:, 16:] = 1
            one = Segmentation(labels, torch.full((4, 4), 0.9))
        return Given([one] * len(batch))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two images of 40 by 20 pixels, one in a subfolder, and something else."""
    folder = tmp_path / "photos"
    (folder / "b").mkdir(parents=True)
    Image.new("RGB", (40, 20), "red").save(folder / "a.png")
    Image.new("RGB", (40, 20), "blue").save(folder / "b" / "a.jpg")
    (folder / "notes.txt").write_text("not an image")
    return folder


def run(task: str, monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(prediction_files, "open_export", lambda *_: GivenNetwork(task))
    return main(["predict", "model", *map(str, arguments)])


@pytest.mark.filterwarnings("ignore:__array__ implementation")  # of pycocotools
@pytest.mark.parametrize("task", CONFIG)
def test_coco_is_what_pycocotools_reads(
    task: str, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "coco.json"
    assert run(task, monkeypatch, photos, "--to", "coco", "--out", out) == 0
    coco = COCO(str(out))
    assert [image["file_name"] for image in coco.imgs.values()] == ["a.png", "b/a.jpg"]
    assert [one["name"] for one in coco.cats.values()] == ["cat", "dog"]
    assert len(coco.anns) == 2
    found = coco.anns[1]
    assert (found["category_id"], found["bbox"], found["area"]) == (2, [20, 10, 20, 10], 200)
    assert found["score"] == pytest.approx(0.9)
    mask = coco.annToMask(found)
    assert mask.shape == (20, 40)
    assert mask.sum() == mask[10:, 20:].sum() == 200


def test_yolo_has_a_text_per_image(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "yolo"
    assert run("detection", monkeypatch, photos, "--to", "yolo", "--out", out) == 0
    line = "1 0.750000 0.750000 0.500000 0.500000 0.9000\n"
    assert (out / "labels" / "a.txt").read_text() == line
    assert (out / "labels" / "b" / "a.txt").read_text() == line
    assert (out / "classes.txt").read_text() == "cat\ndog\n"
    assert run("segmentation", monkeypatch, photos, "--to", "yolo", "--out", tmp_path / "m") == 0
    label, *numbers = (tmp_path / "m" / "labels" / "a.txt").read_text().split()
    assert (label, len(numbers)) == ("1", 9)
    assert {float(number) for number in numbers[:8]} == {0.5, 1.0}


@pytest.mark.parametrize("task", CONFIG)
def test_label_studio_takes_the_tasks(
    task: str, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tag = CONFIG[task]
    text = (
        f'<View><Image name="photo" value="$image"/><{tag} name="animal" toName="photo">'
        f'<Label value="dog"/><Label value="cat"/></{tag}></View>'
    )
    (tmp_path / "config.xml").write_text(text)
    out = tmp_path / "tasks.json"
    more = ("--labeling-config", tmp_path / "config.xml", "--prefix", "https://files.test/")
    assert run(task, monkeypatch, photos, "--out", out, *more) == 0
    tasks = json.loads(out.read_text())
    interface = LabelInterface(text)
    assert [one["data"]["image"] for one in tasks] == [
        "https://files.test/a.png",
        "https://files.test/b/a.jpg",
    ]
    for one in tasks:
        (prediction,) = one["predictions"]
        assert interface.validate_prediction(prediction)
        (region,) = prediction["result"]
        assert (region["from_name"], region["to_name"]) == ("animal", "photo")
        assert (region["original_width"], region["original_height"]) == (40, 20)


def test_an_unreadable_image_is_named_and_left_out(
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (photos / "c.png").write_bytes(b"not an image")
    out = tmp_path / "tasks.json"
    assert run("detection", monkeypatch, photos, "--out", out) == 1
    assert "c.png" in capsys.readouterr().err
    assert len(json.loads(out.read_text())) == 2


@pytest.mark.parametrize("to", ["yolo", "coco"])
def test_if_no_image_can_be_read_each_is_named(
    to: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "c.png").write_bytes(b"not an image")
    out = tmp_path / "out"
    assert run("detection", monkeypatch, tmp_path / "c.png", "--to", to, "--out", out) == 1
    assert "c.png" in capsys.readouterr().err
    assert out.exists()


def test_the_threshold_leaves_out_what_is_less_sure(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for threshold, regions in (("0.05", 2), ("0.95", 0)):
        out = tmp_path / threshold
        more = ("--to", "coco", "--threshold", threshold)
        assert run("detection", monkeypatch, photos / "a.png", "--out", out, *more) == 0
        assert len(json.loads(out.read_text())["annotations"]) == regions


def test_what_cannot_be_predicted(
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"

    def refused(task: str, *arguments: object) -> str:
        assert run(task, monkeypatch, *arguments) == 1
        return capsys.readouterr().err

    assert "does not exist" in refused("detection", photos / "none", "--out", out)
    (photos / "empty").mkdir()
    assert "no images" in refused("detection", photos / "empty", "--out", out)
    (photos / "empty" / "a.png").touch()
    twice = refused("detection", photos / "a.png", photos / "empty", "--out", out)
    assert "both be called a.png" in twice
    assert "coco has no classes" in refused("classification", photos, "--to", "coco", "--out", out)
    assert "already exists" in refused("detection", photos, "--out", photos)
    assert not out.exists()


def test_a_label_with_a_line_break_is_one_line_of_yolos_classes(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.xml").write_text(
        '<View><Image name="i" value="$i"/><RectangleLabels name="l" toName="i">'
        '<Label value="big&#10;cat" predicted_values="cat"/><Label value="dog"/>'
        "</RectangleLabels></View>"
    )
    out = tmp_path / "yolo"
    more = ("--to", "yolo", "--labeling-config", tmp_path / "config.xml")
    assert run("detection", monkeypatch, photos, "--out", out, *more) == 0
    assert (out / "classes.txt").read_text() == "big cat\ndog\n"
    assert (out / "labels" / "a.txt").read_text().startswith("1 ")


def test_no_text_of_yolo_replaces_another(
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (photos / "a.jpg").write_bytes((photos / "b" / "a.jpg").read_bytes())
    out = tmp_path / "yolo"
    assert run("detection", monkeypatch, photos, "--to", "yolo", "--out", out) == 1
    assert "a.jpg and a.png would both be described in a.txt" in capsys.readouterr().err
    assert not out.exists()


def test_a_name_that_is_not_text_is_refused_before_all_are_predicted(
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (photos / os.fsdecode(b"caf\xe9.png")).write_bytes((photos / "a.png").read_bytes())
    assert run("detection", monkeypatch, photos, "--out", tmp_path / "tasks.json") == 1
    assert "caf\N{REPLACEMENT CHARACTER}.png" in capsys.readouterr().err


def test_what_is_no_file_is_not_read(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pipe would be waited for without end."""
    (photos / "folder.png").mkdir()
    os.mkfifo(photos / "pipe.png")
    out = tmp_path / "tasks.json"
    assert run("detection", monkeypatch, photos, "--out", out) == 0
    assert len(json.loads(out.read_text())) == 2


@pytest.mark.parametrize(
    ("prefix", "address"),
    [
        ("https://files.test/", "https://files.test/50%25%20%231.png"),
        ("/data/local-files/?d=p/", "/data/local-files/?d=p/50%25%20%231.png"),
        ("s3://bucket/", "s3://bucket/50% #1.png"),
        ("", "50% #1.png"),
    ],
)
def test_addresses_are_encoded_where_they_are_decoded(
    prefix: str,
    address: str,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = (photos / "a.png").rename(photos / "50% #1.png")
    out = tmp_path / "tasks.json"
    assert run("detection", monkeypatch, file, "--out", out, "--prefix", prefix) == 0
    (task,) = json.loads(out.read_text())
    assert task["data"]["image"] == address


def test_an_output_that_cannot_be_written_is_said(
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "file").touch()
    out = tmp_path / "file" / "tasks.json"
    assert run("detection", monkeypatch, photos, "--out", out) == 1
    assert "cannot be written" in capsys.readouterr().err


@pytest.mark.parametrize("to", ["coco", "yolo"])
def test_nothing_half_is_left_on_a_full_disk(
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    to: str,
) -> None:
    write = Path.write_text

    def full(self: Path, text: str, **options: Any) -> int:
        write(self, text[:1], **options)
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full)
        out = tmp_path / "made" / "out"
        assert run("detection", monkeypatch, photos, "--to", to, "--out", out) == 1
    assert "out cannot be written: No space left on device." in capsys.readouterr().err
    assert list(out.parent.iterdir()) == []


def test_a_model_that_cannot_be_read_is_not_the_output(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / ("a" * 300)
    assert main(["predict", str(model), str(photos), "--out", str(tmp_path / "out")]) == 1
    said = capsys.readouterr().err
    assert "File name too long" in said
    assert "written" not in said


def test_a_saved_network_predicts(photos: Path, tmp_path: Path) -> None:
    make_network("classification", None, ("cat", "dog"), 32).save(tmp_path / "model")
    out = tmp_path / "tasks.json"
    assert main(["predict", str(tmp_path / "model"), str(photos), "--out", str(out)]) == 0
    tasks = json.loads(out.read_text())
    (region,) = tasks[0]["predictions"][0]["result"]
    assert region["value"] == {"choices": ["cat"]}
