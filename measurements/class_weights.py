"""The effect of class weights in the loss when some classes are rare.

    python -m measurements.class_weights IMAGES RESULTS random cdal-cs

RESULTS is the --out of a finished `cdal benchmark` of the class folders IMAGES. For each selector
and seed, a new network or head is trained on all images labelled at the end, with each kind of
weights, and measured on the test images: the accuracy in per cent, mean over the seeds with the
smallest and the largest.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch

from cdal.benchmark.folder import Json, read_json
from cdal.benchmark.loaded_data import LoadedFeatures
from cdal.benchmark.plan import FEATURE_BYTES
from cdal.datasets import ImageSet, LabelledImages, open_images
from cdal.models import Recipe, choose_device, fit, make_network
from cdal.models.backbone import is_backbone
from cdal.models.classification.head import ClassificationHead
from cdal.models.classification.logistic import fit_logistic
from cdal.models.feature_store import FeatureStore
from cdal.models.recipe import class_weights

POWERS = {"inverse": 1.0, "root": 0.5, "none": 0.0}


def named(images: ImageSet, names: Sequence[str]) -> LabelledImages:
    """The images with these names."""
    known = {example.name: example for example in images.examples}
    return LabelledImages(images, [known[name] for name in names])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", type=Path)
    parser.add_argument("results", type=Path)
    parser.add_argument("selectors", nargs="+")
    parser.add_argument("--features", type=Path, help="default: RESULTS/features")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    images = open_images(options.images, task="classification")
    record = read_json(options.results / "results.json")
    test = named(images, read_json(options.results / "images.json")["test"])
    measure = accuracy
    if is_backbone(record["settings"]["network"]):
        kept = FeatureStore(options.features or options.results / "features", FEATURE_BYTES)
        measure = partial(accuracy_of_head, kept)
    print("| picked by | " + " | ".join(POWERS) + " |\n|---|" + "---|" * len(POWERS))
    for selector in options.selectors:
        runs = [run for run in record["runs"] if run["selector"] == selector]
        cells = []
        for power in POWERS.values():
            found = [100 * measure(images, test, record["settings"], run, power) for run in runs]
            mean = sum(found) / len(found)
            cells.append(f"{mean:.1f} ({min(found):.1f} to {max(found):.1f})")
        print(f"| {selector} | {' | '.join(cells)} |", flush=True)


def accuracy(
    images: ImageSet, test: LabelledImages, settings: Json, run: Json, power: float
) -> float:
    """The test accuracy of a network trained on all images labelled in a run."""
    names = [name for step in run["steps"] for name in step["picked"]]
    network = make_network(
        "classification",
        settings["network"],
        images.classes,
        settings["image_size"],
        choose_device(),
        seed=run["seed"],
        pretrained=False,
    )
    vars(network)["class_weights"] = partial(class_weights, power=power)
    fit(network, named(images, names), None, Recipe(seed=run["seed"]))
    return network.evaluate(test).main


def accuracy_of_head(
    kept: FeatureStore,
    images: ImageSet,
    test: LabelledImages,
    settings: Json,
    run: Json,
    power: float,
) -> float:
    """The same of a head, on features that are kept."""
    network = make_network(
        "classification", settings["network"], images.classes, settings["image_size"]
    )
    assert isinstance(network, ClassificationHead)
    names = [name for step in run["steps"] for name in step["picked"]]
    train, measured = (
        LoadedFeatures.read(part, network, kept) for part in (named(images, names), test)
    )
    labels = torch.stack(list(train.targets))
    weights = class_weights(torch.bincount(labels, minlength=len(images.classes)), power)
    vectors = torch.stack([image.maps[0] for image in train.features]).float()
    found = fit_logistic(vectors, labels, weights)
    network.module.load_state_dict({"weight": found.weight, "bias": found.bias})
    return network.evaluate(measured).main


if __name__ == "__main__":
    main()
