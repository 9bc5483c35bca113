"""Tiny copies of the published layouts of the paper's data sets."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import CIFAR100


def write(file: Path, pixels: np.ndarray) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8)).save(file)


def write_voc(root: Path) -> None:
    lists = {
        "VOC2007": {"trainval": ("000001", "000002"), "test": ("000003",)},
        "VOC2012": {"train": ("2008_1",), "val": ("2008_2",), "trainval": ("2008_1", "2008_2")},
    }
    for year, splits in lists.items():
        folder = root / "VOCdevkit" / year
        for split, names in splits.items():
            file = folder / "ImageSets" / "Main" / f"{split}.txt"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("".join(f"{name}\n" for name in names))
            for name in names:
                write(folder / "JPEGImages" / f"{name}.jpg", np.zeros((20, 30, 3)))
                label = "dog" if year == "VOC2012" else "cat"
                note = folder / "Annotations" / f"{name}.xml"
                note.parent.mkdir(exist_ok=True)
                note.write_text(
                    f"<annotation><object><name>{label}</name><bndbox><xmin>1</xmin>"
                    "<ymin>2</ymin><xmax>10</xmax><ymax>12</ymax></bndbox></object>"
                    "<object><name>dog</name><difficult>1</difficult><bndbox><xmin>12</xmin>"
                    "<ymin>2</ymin><xmax>25</xmax><ymax>12</ymax></bndbox></object></annotation>"
                )


def write_cityscapes(root: Path) -> None:
    for split, count in (("train", 2), ("val", 1)):
        for row in range(count):
            name = f"town_{row:06}_000019"
            write(root / f"leftImg8bit/{split}/town/{name}_leftImg8bit.png", np.zeros((4, 8, 3)))
            mask = np.full((4, 8), 7)  # road
            mask[0] = 0  # unlabelled
            mask[1] = 33  # bicycle
            write(root / f"gtFine/{split}/town/{name}_gtFine_labelIds.png", mask)


def write_bdd100k(root: Path) -> None:
    for split, count in (("train", 3), ("val", 1)):
        for row in range(count):
            write(root / f"images/10k/{split}/{row}.jpg", np.full((36, 64, 3), 40 * row))
            mask = np.zeros((36, 64))  # road
            mask[:, 30:] = 13  # car
            mask[0] = 255
            write(root / f"labels/sem_seg/masks/{split}/{row}.png", mask)


def write_camvid(root: Path) -> None:
    for split, count in (("train", 2), ("val", 1), ("test", 1)):
        for row in range(count):
            name = f"{split}_{row}.png"
            write(root / split / name, np.full((24, 32, 3), 40 * row))
            mask = np.full((24, 32), 3)  # road
            mask[:, 16:] = 8  # car
            mask[0] = 11  # void
            write(root / f"{split}annot" / name, mask)


def write_cifar(root: Path, kind: Any, patch: pytest.MonkeyPatch) -> None:
    """Write a few images for CIFAR10 or CIFAR100, and let torchvision take them for the original.

    Args:
        root: the folder.
        kind: the class of torchvision.
        patch: changes the checksums that the class expects.
    """
    fine = kind is CIFAR100
    names = [f"class{row}" for row in range(100 if fine else 10)]

    def put(name: str, content: dict[str, Any]) -> str:
        file = root / kind.base_folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(pickle.dumps(content))
        return hashlib.md5(file.read_bytes(), usedforsecurity=False).hexdigest()

    for split, count in (("train", 6), ("test", 2)):
        pixels = np.arange(count * 3072, dtype=np.uint32).reshape(count, 3072) % 251
        labels = [row % 2 for row in range(count)]
        content = {"data": pixels.astype(np.uint8), "fine_labels" if fine else "labels": labels}
        patch.setattr(kind, f"{split}_list", [[split, put(split, content)]])
    key = kind.meta["key"]
    patch.setattr(kind, "meta", {"filename": "meta", "key": key, "md5": put("meta", {key: names})})
