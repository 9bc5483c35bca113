"""The experiments of the paper (CDAL, ECCV 2020, section 4) as settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cdal.benchmark.data_set import DataSet, open_data_set
from cdal.benchmark.errors import BenchmarkError
from cdal.benchmark.standard_sets import LAYOUTS, find_standard_set, open_standard_set

SAYS_NOTHING = "the paper does not say"


@dataclass(frozen=True, slots=True)
class Protocol:
    """The paper's settings for one data set; amounts as on the command line.

    Attributes:
        where: where the paper gives each setting, or that it does not; what it leaves open is our
            choice.
        layout: the data set, if its name is not the protocol's.
    """

    task: str
    network: str
    image_size: int
    initial: str
    step: str
    until: str
    seeds: int
    epochs: int
    where: Mapping[str, str]
    layout: str | None = None


PUBLISHED: Mapping[str, Mapping[str, str]] = {
    task: {
        "missing": "skip",  # 3.1, Eq. 2
        "region": "class",  # 3.1, Eq. 1
        "policy": "paper",  # 3.3
        "reward": reward,  # 3.2
        "sums": "raw",  # 3.2, Eq. 3 to 5
    }
    for task, reward in (
        ("classification", "cd+vr"),
        ("detection", "cd+vr"),
        ("segmentation", "cd+vr+sr"),
    )
}
"""What the paper's method is to the letter, by task, as options of the command."""


_RUNS = "4, compared approaches: three independent runs"
_CIFAR_WHERE = {
    "network": "4.3, figure 5: VGG16; with batch normalisation, as in VAAL's code",
    "image_size": "4: the size of CIFAR's images",
    "initial": f"{SAYS_NOTHING}; 4.1 has 10% for segmentation, figure 5 starts there",
    "step": "9 (supplement): 5%",
    "until": f"{SAYS_NOTHING}; figure 5 ends there",
    "seeds": _RUNS,
    "epochs": SAYS_NOTHING,
}
_STREETS_WHERE = {
    "network": "4.1: a dilated residual network, without saying which; drn_d_22 is ours",
    "image_size": f"{SAYS_NOTHING}; the longer side, the aspect ratio stays",
    "seeds": _RUNS,
    "epochs": SAYS_NOTHING,
}

PROTOCOLS: Mapping[str, Protocol] = {
    "cifar-10": Protocol(
        "classification", "vgg16_bn", 32, "10%", "5%", "40%", 3, 100, where=_CIFAR_WHERE
    ),
    "cifar-100": Protocol(
        "classification", "vgg16_bn", 32, "10%", "5%", "40%", 3, 100, where=_CIFAR_WHERE
    ),
    "voc": Protocol(
        "detection", "ssd300_vgg16", 300, "1000", "1000", "10000", 3, 300,
        where={
            "network": "4.2: SSD with VGG-16",
            "image_size": f"{SAYS_NOTHING}; SSD with VGG-16 takes 300",
            "initial": f"{SAYS_NOTHING}; figure 4 starts at 1,000",
            "step": f"{SAYS_NOTHING}; figure 4 has a point every 1,000",
            "until": "4.2: 10K, figure 4 ends there",
            "seeds": _RUNS,
            "epochs": f"{SAYS_NOTHING}; 4.2 refers to the protocol of learning loss",
        },
    ),
    "cityscapes": Protocol(
        "segmentation", "drn_d_22", 1024, "10%", "5%", "40%", 3, 50,
        where={
            **_STREETS_WHERE,
            "initial": "4.1: 10%",
            "step": "4.1: 5%, 150 images",
            "until": "4.1: 40%",
        },
    ),
    "cityscapes-cereals": Protocol(
        "segmentation", "fcn8s_quarter", 1024, "50", "50", "300", 3, 50,
        where={
            **_STREETS_WHERE,
            "network": "7 (supplement): FCN-8s with a width multiplier of 0.25",
            "initial": "7: 50 images",
            "step": "7: 50",
            "until": "7, table 1: 300 frames",
        },
        layout="cityscapes",
    ),
    "cityscapes-rbal": Protocol(
        "segmentation", "icnet", 1024, "586", "769", "1355", 3, 50,
        where={
            **_STREETS_WHERE,
            "network": "7 (supplement): ICNet",
            "initial": "7: 586 frames",
            "step": "7: 769 frames",
            "until": "7, table 1: 1,355 frames",
        },
        layout="cityscapes",
    ),
    "bdd100k": Protocol(
        "segmentation", "drn_d_22", 1024, "800", "400", "3200", 3, 50,
        where={
            **_STREETS_WHERE,
            "initial": "4.1: 10%, twice the budget of 400",
            "step": "4.1: a budget of 400; figure 3",
            "until": "4.1: 40%",
        },
    ),
    "camvid": Protocol(
        "segmentation", "drn_d_22", 480, "10%", "5%", "40%", 3, 50,
        where={
            **_STREETS_WHERE,
            "network": "figure 1 shows CamVid, without saying which network; drn_d_22 is ours",
            "initial": f"{SAYS_NOTHING}; as for Cityscapes",
            "step": f"{SAYS_NOTHING}; as for Cityscapes",
            "until": f"{SAYS_NOTHING}; as for Cityscapes",
        },
    ),
}  # fmt: skip
"""The protocols by data set."""


def open_for_protocol(path: Path, wanted: str, unlabelled: str) -> tuple[str, DataSet]:
    """Return the name of the protocol to follow, and the data.

    Args:
        path: of a data set in torchvision's layout, or, if the protocol is named, of any data set
            for the same task.
        wanted: "paper", or "paper:NAME" to follow that data set's protocol.
        unlabelled: see ``open_data_set``.

    Raises:
        BenchmarkError: there is no such protocol, or none for this data set.
        DatasetError: there are no labelled images, or they are for another task.
    """
    first, _, name = wanted.partition(":")
    found = find_standard_set(path)
    if first != "paper" or (name and name not in PROTOCOLS):
        named = ", ".join(f"paper:{known}" for known in PROTOCOLS)
        raise BenchmarkError(f"--protocol must be paper or one of {named}, not {wanted!r}.")
    if not name and found is None:
        needed = "; ".join(f"{'+'.join(files)} ({known})" for known, (files, _) in LAYOUTS.items())
        raise BenchmarkError(
            f"{path} is not one of the paper's data sets, which contain {needed}. To follow the "
            "protocol of one of them with other images, name it: --protocol paper:cifar-10."
        )
    if found is not None and (name in ("", found) or PROTOCOLS[name].layout == found):
        if unlabelled == "background":
            raise BenchmarkError(
                f"--unlabelled has no effect: nothing is learnt from {found}'s pixels without a "
                "class."
            )
        return name or found, open_standard_set(path, found)
    return name, open_data_set(path, PROTOCOLS[name].task, unlabelled)
