"""The layouts of the paper's data sets, with a few tiny images."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from support.layouts import write, write_bdd100k, write_camvid, write_cityscapes, write_voc
from torchvision.datasets import CIFAR10

from cdal.benchmark.errors import BenchmarkError
from cdal.benchmark.protocol import PROTOCOLS, SAYS_NOTHING, open_for_protocol
from cdal.benchmark.standard_sets import (
    LAYOUTS,
    STREET_CLASSES,
    find_standard_set,
    open_standard_set,
)
from cdal.models import ARCHITECTURES, IGNORED


def test_voc_of_both_years(tmp_path: Path) -> None:
    write_voc(tmp_path)
    assert find_standard_set(tmp_path) == "voc"
    data = open_standard_set(tmp_path, "voc")
    assert data.classes == ("cat", "dog")
    assert data.pool.names == (
        "VOC2007/JPEGImages/000001.jpg",
        "VOC2007/JPEGImages/000002.jpg",
        "VOC2012/JPEGImages/2008_1.jpg",
        "VOC2012/JPEGImages/2008_2.jpg",
    )
    assert data.test.names == ("VOC2007/JPEGImages/000003.jpg",)
    assert data.pool[3][1].tolist() == [[0, 1, 10, 12, 1]]
    assert data.test[0][1].tolist() == [[0, 1, 10, 12, 0]]
    assert data.difficult is not None
    assert data.difficult.names == data.test.names
    assert data.difficult[0][1].tolist() == [[11, 1, 25, 12, 1]]


def test_cityscapes(tmp_path: Path) -> None:
    write_cityscapes(tmp_path)
    assert find_standard_set(tmp_path) == "cityscapes"
    data = open_standard_set(tmp_path, "cityscapes")
    assert len(data.classes) == 19
    assert (data.classes[0], data.classes[18]) == ("road", "bicycle")
    assert (len(data.pool), len(data.test)) == (2, 1)
    image, mask = data.pool[0]
    assert image.shape == (3, 4, 8)
    assert mask.dtype == torch.uint8
    assert mask[:, 0].tolist() == [IGNORED, 18, 0, 0]
    assert data.test.names == ("leftImg8bit/val/town/town_000000_000019_leftImg8bit.png",)


def test_bdd100k(tmp_path: Path) -> None:
    write_bdd100k(tmp_path)
    assert find_standard_set(tmp_path) == "bdd100k"
    data = open_standard_set(tmp_path, "bdd100k")
    assert data.classes == STREET_CLASSES
    assert data.pool.names == (
        "images/10k/train/0.jpg",
        "images/10k/train/1.jpg",
        "images/10k/train/2.jpg",
    )
    assert len(data.test) == 1
    assert data.pool[0][1][0].unique().tolist() == [IGNORED]
    assert data.pool[0][1][1:].unique().tolist() == [0, 13]


def test_camvid(tmp_path: Path) -> None:
    write_camvid(tmp_path)
    assert find_standard_set(tmp_path) == "camvid"
    data = open_standard_set(tmp_path, "camvid")
    assert data.classes[9] == "pedestrian"
    assert (len(data.pool), len(data.test)) == (3, 1)
    assert data.pool[2][1].unique().tolist() == [3, 8, IGNORED]


def test_cityscapes_is_in_the_order_of_the_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_cityscapes(tmp_path)
    write(
        tmp_path / "leftImg8bit/train/town/town_000001_000019_leftImg8bit.png", np.ones((4, 8, 3))
    )
    listed = os.listdir
    # A file system may list files in any order.
    monkeypatch.setattr(os, "listdir", lambda folder: sorted(listed(folder), reverse=True))
    pool = open_standard_set(tmp_path, "cityscapes").pool
    assert list(pool.names) == [
        f"leftImg8bit/train/town/town_{row:06}_000019_leftImg8bit.png" for row in (0, 1)
    ]
    assert [int(pool[row][0].max()) for row in range(2)] == [0, 1]


@pytest.mark.parametrize("name", ["cifar-10", "cifar-100"])
def test_cifar_that_is_not_the_original_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / LAYOUTS[name][0][0]).mkdir()
    assert find_standard_set(tmp_path) == name
    with pytest.raises(BenchmarkError, match=f"damaged {name}"):
        open_standard_set(tmp_path, name)


def test_cifar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(self: CIFAR10, root: str, train: bool) -> None:
        self.data = np.arange(2 * 32 * 32 * 3).reshape(2, 32, 32, 3).astype(np.uint8)
        self.targets = [3, 5]
        self.classes = list("abcdefghij")

    monkeypatch.setattr(CIFAR10, "__init__", load)
    data = open_standard_set(tmp_path, "cifar-10")
    assert data.pool.names == ("train/00000", "train/00001")
    image, label = data.pool[1]
    assert image.shape == (3, 32, 32)
    assert image[:, 0, 1].tolist() == [(3072 + 3 + channel) % 256 for channel in range(3)]
    assert int(label) == 5


def test_a_protocol_is_found_by_the_layout_or_named(tmp_path: Path) -> None:
    write_voc(tmp_path)
    assert open_for_protocol(tmp_path, "paper", "ignore")[0] == "voc"
    assert open_for_protocol(tmp_path, "paper:voc", "ignore")[0] == "voc"
    one = tmp_path / "VOCdevkit" / "VOC2007"
    name, data = open_for_protocol(one, "paper:voc", "ignore")
    assert (name, len(data.pool), len(data.test)) == ("voc", 2, 1)
    with pytest.raises(BenchmarkError, match="--unlabelled has no effect"):
        open_for_protocol(tmp_path, "paper", "background")


@pytest.mark.parametrize("name", sorted(PROTOCOLS))
def test_every_number_says_where_it_is_from(name: str) -> None:
    protocol = PROTOCOLS[name]
    fields = {"network", "image_size", "initial", "step", "until", "seeds", "epochs"}
    assert set(protocol.where) == fields
    assert protocol.where["epochs"].startswith(SAYS_NOTHING)
    assert protocol.network in ARCHITECTURES[protocol.task]
