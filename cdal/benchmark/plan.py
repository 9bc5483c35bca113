"""From the command's arguments to a simulation that can be run."""

from __future__ import annotations

import argparse
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from cdal.benchmark.ablations import ABLATIONS, DEFAULT_SELECTORS
from cdal.benchmark.budgets import Amount, budgets, region_budgets
from cdal.benchmark.curve import OPTIONS, Curve, read_curves
from cdal.benchmark.data_set import DataSet, Part, open_data_set
from cdal.benchmark.errors import BenchmarkError
from cdal.benchmark.loaded_data import Loaded, LoadedData, LoadedFeatures, LoadedImages
from cdal.benchmark.progress import Progress
from cdal.benchmark.protocol import PROTOCOLS, PUBLISHED, open_for_protocol
from cdal.benchmark.regions import Grid, by_region
from cdal.benchmark.settings import Settings
from cdal.benchmark.shape import shape_for
from cdal.benchmark.trainer import new_network, recipe
from cdal.models import TaskNetwork, choose_device, choose_network
from cdal.models.backbone import is_backbone
from cdal.models.classification.head import ClassificationHead
from cdal.models.classification.pooled import PooledHead
from cdal.models.detection.architectures import DETECTORS, has_background
from cdal.models.detection.network import DetectionNetwork
from cdal.models.detection.ssd import Ssd
from cdal.models.feature_store import FeatureStore
from cdal.models.head import HeadNetwork
from cdal.models.opinions import dropping_layers
from cdal.models.tiling import LEAST_SIDE

DEFAULTS: dict[str, Any] = {"initial": "10%", "step": "5%", "until": "40%", "seeds": 3}
OF_PROTOCOL = (*DEFAULTS, "network", "image_size", "epochs")
OF_FEATURES = ("core-set", "typiclust", "prob-cover", "badge")
"""Selectors that need features, which only whole images have."""
NAMED_CLASSES = 3
"""How many classes the ablation of classes adds, one after another."""
SAMPLED = 20
"""Number of images whose size is read if no image size is given."""
FEATURE_BYTES = 16 * 2**30
"""How much a folder of features may hold; the oldest ones go first."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A simulation to run; no images are in memory yet, except CIFAR's."""

    settings: Settings
    curves: tuple[Curve, ...]
    data: DataSet
    device: torch.device
    grid: Grid | None = None

    @property
    def shape(self) -> tuple[int, int] | None:
        """Rows and columns of the images of segmentation by the paper's protocol; else squares."""
        settings = self.settings
        return _shape(self.data, settings.protocol, settings.network, settings.image_size)

    def read(self, features: Path) -> LoadedData:
        """Read and prepare all images, and report the progress.

        Args:
            features: the folder where features for heads are kept.

        Raises:
            BenchmarkError: they do not fit into memory, or a selector does not suit the network.
            DatasetError: a file cannot be read.
        """
        network = new_network(self.settings, self.data.classes, self.device, seed=0)
        _check_dropping(self.curves, network)
        store = FeatureStore(features, FEATURE_BYTES)
        progress = Progress(float(len(self.data.pool) + len(self.data.test)))

        def read(part: Part, what: str) -> Loaded:
            count = float(len(part))

            def tell(share: float) -> None:
                progress.under_way(f"reading the {what}", share, count)

            if isinstance(network, HeadNetwork):
                loaded: Loaded = LoadedFeatures.read(part, network, store, tell)
            else:
                loaded = LoadedImages.read(part, network, tell, self.shape)
            progress.finished(f"read the {what}, {len(part):,} images", count)
            return loaded

        pool, test = read(self.data.pool, "pool"), read(self.data.test, "test set")
        difficult = None
        if self.data.difficult is not None and isinstance(network, DetectionNetwork):
            difficult = [
                network.prepare_target(target, image.shape[1], image.shape[2])
                for image, target in map(
                    self.data.difficult.__getitem__, range(len(self.data.test))
                )
            ]
        loaded = LoadedData(self.data, pool, test, self.device, difficult)
        return loaded if self.grid is None else by_region(loaded, self.grid)


def make_plan(arguments: argparse.Namespace) -> Plan:
    """Check all that can be checked before images are read.

    Raises:
        BenchmarkError, DatasetError, ModelError, OptionError: an argument is missing, impossible
            or without effect; the message names it.
    """
    for name in ("dataset", "out"):
        if getattr(arguments, name) is None:
            raise BenchmarkError(f"--{name} is missing.")
    _check_numbers(arguments)
    if arguments.repaired and arguments.protocol is None:
        raise BenchmarkError("--repaired has no effect without --protocol.")
    protocol, data = _open(arguments)
    asked = _with_protocol(arguments, protocol)
    shared = {name: value for name in OPTIONS if (value := getattr(arguments, name)) is not None}
    selectors = _selectors(arguments, shared, data)
    base = {} if protocol is None or arguments.repaired else PUBLISHED[data.task]
    curves = read_curves(selectors, shared, data.task, data.classes, base)
    kept = next((curve.label for curve in curves if curve.kind.background), None)
    device = choose_device(arguments.device)
    network, side = choose_network(
        data.task,
        device,
        _sizes(data, asked),
        asked["network"],
        asked["image_size"] or arguments.tile,
        # A head has no background class.
        arguments.training or ("head" if kept is None else "full"),
    )
    if arguments.training is not None and is_backbone(network) != (arguments.training == "head"):
        raise BenchmarkError(
            f"--training {arguments.training} does not suit the network {network}: a head needs a "
            "backbone, timm:NAME, and any other network is trained in full."
        )
    if kept is not None and not has_background(network):
        raise BenchmarkError(f"{network} has no background class, which {kept} would keep.")
    _check_opinions(curves, network, data.task)
    _check_companions(curves, network)
    _check_first_round(arguments, network)
    grid = _grid(arguments, curves, data, protocol, network, side)
    initial, step, until = (Amount.read(asked[k], k) for k in ("initial", "step", "until"))
    settings = Settings(
        dataset=str(arguments.dataset),
        images=data.fingerprint,
        task=data.task,
        protocol=protocol,
        selectors=tuple(curve.label for curve in curves),
        options={**base, **shared},
        initial=asked["initial"],
        step=asked["step"],
        until=asked["until"],
        budgets=budgets(initial, step, until, len(data.pool))
        if grid is None
        else region_budgets(initial, step, until, len(data.pool), len(grid)),
        seeds=asked["seeds"],
        network=network,
        image_size=side,
        pretrained=True,
        epochs=asked["epochs"],
        batch_size=arguments.batch_size,
        learning_rate=arguments.learning_rate,
        warm_start=arguments.warm_start,
        device=device.type,
        limit=arguments.limit,
        test_limit=arguments.test_limit,
        first_round=arguments.first_round,
        bias=arguments.bias or 0,
        noise=arguments.noise or 0.0,
        unlabelled=arguments.unlabelled,
        keep_scores=arguments.keep_scores,
        oracle=arguments.oracle,
        regions=arguments.regions,
        repaired=arguments.repaired,
        tile=arguments.tile,
    )
    recipe(settings, seed=0)  # raises if its numbers are wrong
    # Whether it starts from pretrained weights depends on those available on this machine.
    example = new_network(settings, data.classes, device, seed=0)
    _check_recipe(arguments, example)
    settings = replace(settings, pretrained=example.manifest.pretrained)
    return Plan(settings, curves, data, device, grid)


def pool_of(settings: Mapping[str, Any]) -> Part:
    """The pool of a simulation, given its settings as JSON data.

    Raises:
        BenchmarkError, DatasetError: the images are not where they were.
    """
    path, protocol = Path(settings["dataset"]), settings["protocol"]
    if protocol is None:
        data = open_data_set(path, settings["task"], settings["unlabelled"])
    else:
        data = open_for_protocol(path, f"paper:{protocol}", settings["unlabelled"])[1]
    return data.limited(settings["limit"], settings["test_limit"]).pool


def kind_of(arguments: argparse.Namespace) -> tuple[str, int]:
    """The task that the images are labelled for, and their number of classes.

    Raises:
        BenchmarkError, DatasetError: there are no such images.
    """
    data = _open(arguments)[1]
    return data.task, len(data.classes)


def machine(device: torch.device) -> dict[str, Any]:
    """The machine it runs on, as JSON data."""
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return {
        "torch": torch.__version__,
        "python": platform.python_version(),
        "device": gpu or device.type,
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
    }


def _open(arguments: argparse.Namespace) -> tuple[str | None, DataSet]:
    protocol = None
    if arguments.protocol is None:
        data = open_data_set(arguments.dataset, arguments.task, arguments.unlabelled)
    else:
        protocol, data = open_for_protocol(
            arguments.dataset, arguments.protocol, arguments.unlabelled
        )
        if arguments.task not in (None, data.task):
            raise BenchmarkError(f"The protocol of {protocol} is for {data.task}.")
    return protocol, data.limited(arguments.limit, arguments.test_limit)


def _with_protocol(arguments: argparse.Namespace, protocol: str | None) -> dict[str, Any]:
    """The given values, else the protocol's, else the defaults."""
    given = {name: getattr(arguments, name) for name in OF_PROTOCOL}
    if protocol is not None:
        paper = PROTOCOLS[protocol]
        given = {k: getattr(paper, k) if v is None else v for k, v in given.items()}
    return {k: DEFAULTS.get(k) if v is None else v for k, v in given.items()}


def _selectors(arguments: argparse.Namespace, shared: dict[str, str], data: DataSet) -> str:
    """The curves as text; for an ablation, with its classes filled in."""
    if arguments.benchmark_command != "ablation":
        return str(arguments.selectors or DEFAULT_SELECTORS)
    ablation = ABLATIONS[arguments.name]
    if "{" not in ablation.selectors:
        return str(arguments.selectors or ablation.selectors)
    if "classes" not in shared:
        return ablation.labels(data.classes)
    text = shared.pop("classes")
    classes = [name.strip() for name in text.split("+")]
    if len(classes) != NAMED_CLASSES or len(set(classes)) < NAMED_CLASSES:
        raise BenchmarkError(
            f"--classes of this ablation must be three different classes joined by +, not {text!r}."
        )
    return ablation.labels(classes)


def _sizes(data: DataSet, asked: dict[str, Any]) -> list[tuple[int, int]]:
    """Height and width of some images, if no image size is given."""
    return [] if asked["image_size"] is not None else _some_sizes(data)


def _some_sizes(data: DataSet) -> list[tuple[int, int]]:
    every = max(1, len(data.pool) // SAMPLED)
    images = (data.pool[row][0] for row in range(0, len(data.pool), every))
    return [(image.shape[1], image.shape[2]) for image in images]


def _shape(data: DataSet, protocol: str | None, network: str, side: int) -> tuple[int, int] | None:
    """Rows and columns of the prepared images of segmentation by a protocol; None for squares."""
    if protocol is None or data.task != "segmentation" or is_backbone(network):
        return None  # a head keeps the aspect ratio itself
    return shape_for(_some_sizes(data), side)


def _grid(
    arguments: argparse.Namespace,
    curves: Sequence[Curve],
    data: DataSet,
    protocol: str | None,
    network: str,
    side: int,
) -> Grid | None:
    """The grid of regions, if regions are labelled."""
    of_regions = [curve.label for curve in curves if curve.of_regions]
    if arguments.regions is None:
        if of_regions:
            raise BenchmarkError(f"{of_regions[0]} picks regions of images; add --regions 128.")
        return None
    if data.task != "segmentation" or is_backbone(network):
        raise BenchmarkError(
            "--regions is for segmentation with --training full: elsewhere there are no pixels to "
            "label by region."
        )
    without = next((c.label for c in curves if c.name in OF_FEATURES or c.companion), None)
    if without is not None:
        raise BenchmarkError(f"{without} needs features of whole images; leave out --regions.")
    compared = next((curve.label for curve in curves if curve.opinions), None)
    if compared is not None:
        raise BenchmarkError(f"{compared} compares whole images; leave out --regions.")
    for name in ("bias", "noise", "keep_scores"):
        if getattr(arguments, name):
            raise BenchmarkError(
                f"--{name.replace('_', '-')} is for whole images; leave out --regions."
            )
    return Grid.of(_shape(data, protocol, network, side) or (side, side), arguments.regions)


def _check_numbers(arguments: argparse.Namespace) -> None:
    least = {
        "seeds": 1,
        "regions": 1,
        "limit": 1,
        "test_limit": 1,
        "image_size": 1,
        "tile": LEAST_SIDE,
        "bias": 0,
    }
    for name, smallest in least.items():
        value = getattr(arguments, name)
        if value is not None and value < smallest:
            option = name.replace("_", "-")
            raise BenchmarkError(f"--{option} must be at least {smallest}, not {value}.")
    if not 0 <= (arguments.noise or 0.0) <= 1:
        raise BenchmarkError(f"--noise must be from 0 to 1, not {arguments.noise}.")


def _check_recipe(arguments: argparse.Namespace, network: TaskNetwork) -> None:
    """A logistic regression depends neither on steps nor on where it starts."""
    if not isinstance(network, PooledHead):
        return
    for name in ("epochs", "batch_size", "learning_rate", "warm_start"):
        if getattr(arguments, name):
            raise BenchmarkError(
                f"--{name.replace('_', '-')} has no effect on a head for {network.manifest.task}, "
                "which is a logistic regression; leave it out, or use --training full."
            )


def _check_opinions(curves: Sequence[Curve], network: str, task: str) -> None:
    wanting = next((curve for curve in curves if curve.opinions is not None), None)
    if wanting is not None and task == "detection" and not is_backbone(network):
        raise BenchmarkError(
            f"{wanting.label} compares several opinions about the same boxes, which a head gives, "
            f"and {network} is trained in full; use --training head."
        )


def _check_dropping(curves: Sequence[Curve], network: TaskNetwork) -> None:
    """A head for classification drops its input; others have layers that drop features."""
    wanting = next((curve for curve in curves if curve.opinions == "dropout"), None)
    if wanting is None or isinstance(network, ClassificationHead) or dropping_layers(network):
        return
    raise BenchmarkError(
        f"{wanting.label} compares passes in which features drop out, and "
        f"{network.manifest.architecture} drops none; choose another selector, such as committee, "
        "or another --network."
    )


def _check_companions(curves: Sequence[Curve], network: str) -> None:
    wanting = next((curve for curve in curves if curve.companion is not None), None)
    if wanting is None:
        return
    if is_backbone(network):
        raise BenchmarkError(
            f"{wanting.label} trains a second network on the images, and of a head only features "
            "are kept; use --training full."
        )
    detector = DETECTORS.get(network)
    if wanting.companion == "loss-predictor" and detector and not isinstance(detector.family, Ssd):
        raise BenchmarkError(
            f"{wanting.label} needs an SSD among detectors, and {network} is of another family."
        )


def _check_first_round(arguments: argparse.Namespace, network: str) -> None:
    if arguments.first_round == "random":
        return
    if not is_backbone(network):
        raise BenchmarkError(
            f"Typical images are found by a pretrained backbone, and {network} is trained in full; "
            "use --training head, or --first-round random."
        )
    if arguments.bias:
        raise BenchmarkError("--bias leaves classes out of a random first round only.")


def _processor() -> str:
    """The processor's name, if Linux reports it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())
