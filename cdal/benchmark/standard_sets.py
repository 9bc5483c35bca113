"""The paper's data sets in torchvision's layouts; nothing is downloaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchvision.datasets import CIFAR10, CIFAR100, Cityscapes

from cdal.benchmark.data_set import DataSet, Part
from cdal.benchmark.errors import BenchmarkError
from cdal.datasets import Example, ImageSet, LabelledImages, decode, voc
from cdal.datasets.pixels import decode_mask
from cdal.datasets.sources import open_source
from cdal.models import IGNORED, Dataset


class _Arrays:
    """Images in memory: CIFAR."""

    def __init__(self, images: Tensor, labels: Sequence[int]) -> None:
        self._images = images.permute(0, 3, 1, 2)
        self._labels = torch.tensor(labels)

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int, /) -> tuple[Tensor, Tensor]:
        return self._images[index], self._labels[index]


class _Streets:
    """Cityscapes with its 19 evaluated classes."""

    def __init__(self, files: Sequence[tuple[str, str]]) -> None:
        self._files = files
        self._index = torch.full((256,), IGNORED, dtype=torch.uint8)
        for street in Cityscapes.classes:
            if not street.ignore_in_eval:
                self._index[street.id] = street.train_id

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int, /) -> tuple[Tensor, Tensor]:
        image, mask = (Path(file) for file in self._files[index])
        values = decode_mask(mask.read_bytes(), str(mask))
        return decode(image.read_bytes(), str(image)), self._index[values.long()]


class _Masks:
    """Images with masks of train ids; any id that is not a class means unknown."""

    def __init__(self, files: Sequence[tuple[Path, Path]], classes: int) -> None:
        self._files = files
        self._classes = classes

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int, /) -> tuple[Tensor, Tensor]:
        image, mask = self._files[index]
        values = decode_mask(mask.read_bytes(), str(mask))
        known = values.masked_fill(values >= self._classes, IGNORED)
        return decode(image.read_bytes(), str(image)), known


class _Joined:
    """Several data sets in a row."""

    def __init__(self, parts: Sequence[Dataset]) -> None:
        self._parts = parts
        self._rows = [(part, row) for part in parts for row in range(len(part))]

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int, /) -> tuple[Tensor, Tensor]:
        part, row = self._rows[index]
        return part[row]


def _cifar(kind: Any) -> Callable[[Path], DataSet]:
    def read(path: Path) -> DataSet:
        # The files are pickles; torchvision opens only those with the original's MD5.
        sets = {split: kind(str(path), train=split == "train") for split in ("train", "test")}
        parts = {
            split: Part(
                tuple(f"{split}/{row:05}" for row in range(len(images.data))),
                _Arrays(torch.from_numpy(images.data), images.targets),
            )
            for split, images in sets.items()
        }
        return DataSet(
            "classification", tuple(sets["train"].classes), parts["train"], parts["test"]
        )

    return read


def _voc(path: Path) -> DataSet:
    """The training and validation images of both years, and the test images of 2007.

    Difficult objects are not learnt from, and those of the test images are kept apart.
    """
    sources = {name: open_source(path / "VOCdevkit" / name) for name in VOC_YEARS}
    years = {name: voc.read(source, 0, difficult=False) for name, source in sources.items()}
    old = years["VOC2007"]
    classes = tuple(sorted({name for images in years.values() for name in images.classes}))

    def part(chosen: Sequence[tuple[str, ImageSet, Sequence[Example]]]) -> Part:
        names = (f"{year}/{e.name}" for year, _, examples in chosen for e in examples)
        sets = [LabelledImages(images, examples, classes) for _, images, examples in chosen]
        return Part(tuple(names), _Joined(sets))

    new = years["VOC2012"]
    pool = part([("VOC2007", old, old.train), ("VOC2012", new, new.examples)])
    hard = voc.read(sources["VOC2007"], 0, difficult=True)
    test, difficult = (part([("VOC2007", images, images.test)]) for images in (old, hard))
    return DataSet("detection", classes, pool, test, difficult)


def _cityscapes(path: Path) -> DataSet:
    """The training images; the validation images to measure on, as the test images lack labels."""

    def part(split: str) -> Part:
        listed = Cityscapes(str(path), split, mode="fine", target_type="semantic")
        # torchvision lists them in the file system's order, which differs between machines.
        files = sorted(
            (i, masks[0]) for i, masks in zip(listed.images, listed.targets, strict=True)
        )
        names = tuple(Path(image).relative_to(path).as_posix() for image, _ in files)
        return Part(names, _Streets(files))

    return DataSet("segmentation", STREET_CLASSES, part("train"), part("val"))


def _bdd100k(path: Path) -> DataSet:
    """The 7,000 training images; the 1,000 validation images to measure on."""

    def part(split: str) -> Part:
        folders = path / BDD_IMAGES / split, path / BDD_MASKS / split
        return _with_masks(path, *folders, len(STREET_CLASSES))

    return DataSet("segmentation", STREET_CLASSES, part("train"), part("val"))


def _camvid(path: Path) -> DataSet:
    """The training and validation images; the test images to measure on."""
    train, val, test = (
        _with_masks(path, path / split, path / f"{split}annot", len(CAMVID_CLASSES))
        for split in ("train", "val", "test")
    )
    pool = Part((*train.names, *val.names), _Joined([train.images, val.images]))
    return DataSet("segmentation", CAMVID_CLASSES, pool, test)


def _with_masks(root: Path, images: Path, masks: Path, classes: int) -> Part:
    """The images of a folder that have a mask of the same name in another."""
    of_name = {file.stem: file for file in masks.glob("*.png")}
    files = [
        (file, of_name[file.stem])
        for file in sorted(images.iterdir())
        if file.suffix in (".jpg", ".png") and file.stem in of_name
    ]
    names = tuple(image.relative_to(root).as_posix() for image, _ in files)
    return Part(names, _Masks(files, classes))


STREET_CLASSES = tuple(street.name for street in Cityscapes.classes if not street.ignore_in_eval)
"""The 19 classes of Cityscapes and BDD100K, in the order of their train ids."""
CAMVID_CLASSES = (
    "sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian",
    "bicyclist",
)  # fmt: skip
"""The classes of CamVid's masks as published with SegNet (Badrinarayanan et al., 2017)."""
BDD_IMAGES = "images/10k"
BDD_MASKS = "labels/sem_seg/masks"
VOC_YEARS = ("VOC2007", "VOC2012")

LAYOUTS: Mapping[str, tuple[tuple[str, ...], Callable[[Path], DataSet]]] = {
    "cifar-10": (("cifar-10-batches-py",), _cifar(CIFAR10)),
    "cifar-100": (("cifar-100-python",), _cifar(CIFAR100)),
    "voc": (
        (
            *(f"VOCdevkit/{year}/JPEGImages" for year in VOC_YEARS),
            "VOCdevkit/VOC2007/ImageSets/Main/test.txt",
        ),
        _voc,
    ),
    "cityscapes": (
        ("leftImg8bit/train", "leftImg8bit/val", "gtFine/train", "gtFine/val"),
        _cityscapes,
    ),
    "bdd100k": (
        tuple(f"{kind}/{split}" for kind in (BDD_IMAGES, BDD_MASKS) for split in ("train", "val")),
        _bdd100k,
    ),
    "camvid": (
        tuple(f"{split}{kind}" for split in ("train", "val", "test") for kind in ("", "annot")),
        _camvid,
    ),
}
"""Each data set's name, what its folder must contain, and the function that reads it."""


def find_standard_set(path: Path) -> str | None:
    """The name of the data set in a folder; None if it is not one of these."""
    return next(
        (name for name, (needed, _) in LAYOUTS.items() if all((path / n).exists() for n in needed)),
        None,
    )


def open_standard_set(path: Path, name: str) -> DataSet:
    """Open one of the data sets.

    Raises:
        BenchmarkError: torchvision finds it damaged.
        DatasetError: a file cannot be read.
    """
    try:
        return LAYOUTS[name][1](path)
    except RuntimeError as error:
        raise BenchmarkError(f"{path} holds a damaged {name}: {error}") from error
