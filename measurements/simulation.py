"""The cost of a simulation besides training, scoring and decoding; its speed against bare loops.

python measurements/simulation.py --images ../shared/data/cifar10.zip --network resnet18
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from shared import report, timed

from cdal.benchmark.data_set import open_data_set
from cdal.benchmark.loaded_data import LoadedImages
from cdal.benchmark.scores import score
from cdal.cli import main as cdal
from cdal.mixture_kind import MixtureKind
from cdal.models import Recipe, TaskNetwork, choose_device, choose_network, fit, make_network
from cdal.models.recipe import learning_rate_share
from cdal.models.training import batch_order, parameter_groups

OWN = ("select", "other")
"""Parts of a step that are neither training nor forward passes."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=Path, required=True, help="labelled images, any layout")
    parser.add_argument("--limit", type=int, default=600, help="images in the pool")
    parser.add_argument("--test-limit", type=int, default=300)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--selectors", default="random,entropy,core-set,cdal-cs")
    parser.add_argument("--network")
    parser.add_argument("--image-size", type=int)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    overhead(options)
    speed(options)


def overhead(options: argparse.Namespace) -> None:
    """Run a whole simulation, and report what its time was spent on."""
    with tempfile.TemporaryDirectory() as out:
        given = [
            "--dataset", options.images, "--out", out, "--limit", options.limit,
            "--test-limit", options.test_limit, "--epochs", options.epochs,
            "--seeds", options.seeds, "--selectors", options.selectors,
            "--device", options.device, "--training", "full",
        ]  # fmt: skip
        for name in ("network", "image_size"):
            if getattr(options, name) is not None:
                given += [f"--{name.replace('_', '-')}", getattr(options, name)]
        begun = time.perf_counter()
        assert cdal(["benchmark", *map(str, given)]) == 0
        passed = time.perf_counter() - begun
        found = json.loads((Path(out) / "results.json").read_text())
        settings = json.loads((Path(out) / "settings.json").read_text())
    parts = seconds_by_part(found)
    total = sum(parts.values())
    shares = ", ".join(f"{part} {seconds:.2f} s" for part, seconds in parts.items())
    report(f"steps of {settings['network']}:{settings['image_size']}", f"{total:.2f} s: {shares}")
    own = sum(parts[part] for part in OWN)
    report(
        "selecting, and the simulation's own work",
        f"{own / total:.2%} and {parts['other'] / total:.2%} of the steps",
    )
    report("reading the images once, and the report", f"{passed - total:.2f} s beside the steps")


def seconds_by_part(found: dict[str, Any]) -> dict[str, float]:
    """Seconds summed over the steps; work shared by all selectors of a seed counts once."""
    parts: dict[str, float] = {}
    seen: set[tuple[int, str]] = set()
    for run in found["runs"]:
        for number, step in enumerate(run["steps"]):
            for part, seconds in step["seconds"].items():
                shared = (number == 0) or (number == 1 and part == "score" and seconds > 0)
                key = (run["seed"], f"{number} {part}")
                if not (shared and key in seen):
                    parts[part] = parts.get(part, 0.0) + seconds
                if shared:
                    seen.add(key)
    return parts


def speed(options: argparse.Namespace) -> None:
    """Training and scoring as the simulation does them, alternating with bare loops."""
    data = open_data_set(options.images, None, "ignore").limited(options.limit, 1)
    device = choose_device(options.device)
    sizes = [(data.pool[0][0].shape[1], data.pool[0][0].shape[2])]
    architecture, side = choose_network(
        data.task, device, sizes, options.network, options.image_size, "full"
    )

    def fresh() -> TaskNetwork:
        return make_network(data.task, architecture, data.classes, side, device, pretrained=False)

    held = LoadedImages.read(data.pool, fresh())
    part = held.take(range(len(held) // 4))
    recipe = Recipe(epochs=options.epochs)
    kind = MixtureKind("image" if data.task == "classification" else "class")
    rounds: dict[str, list[tuple[float, float]]] = {"training": [], "scoring": []}
    for _ in range(options.repeats):
        mine, bare = fresh(), fresh()
        calls: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
            "training": (
                partial(fit, mine, part, None, recipe),
                partial(bare_training, bare, part, recipe),
            ),
            "scoring": (partial(score, mine, held, [kind]), partial(bare_scoring, mine, held)),
        }
        for what, (ours, theirs) in calls.items():
            rounds[what].append((timed(ours, device), timed(theirs, device)))
    counts = {"training": len(part) * options.epochs, "scoring": len(held)}
    for what, pairs in rounds.items():
        rates = [counts[what] / statistics.median(times) for times in zip(*pairs, strict=True)]
        ratio = statistics.median(a / b for a, b in pairs)
        report(
            f"{what} {architecture}:{side}",
            f"{rates[0]:.0f} images per second, {rates[1]:.0f} in a bare loop: median ratio of "
            f"times {ratio:.3f}",
        )


def bare_training(network: TaskNetwork, images: LoadedImages, recipe: Recipe) -> None:
    """Only the steps of a training."""
    plan = recipe.plan(len(images), network.device, network.image_size, False, network.defaults)
    loss_of = network.objective(images.class_counts, recipe)
    optimiser = torch.optim.AdamW(
        parameter_groups(network.module, recipe.weight_decay), lr=plan.learning_rate
    )
    draws = torch.Generator().manual_seed(0)
    network.module.train()
    step = 0
    for _ in range(plan.epochs):
        for batch, targets in images.batches(batch_order(len(images), plan.steps_per_epoch, draws)):
            changed, wanted = network.augment(batch, targets, draws)
            optimiser.zero_grad(set_to_none=True)
            with network.autocast(plan.mixed_precision):
                loss = loss_of(changed, wanted)
            torch.autograd.backward(loss)
            for group in optimiser.param_groups:
                group["lr"] = plan.learning_rate * learning_rate_share(
                    step, plan.steps, recipe.warmup
                )
            optimiser.step()
            step += 1
    network.module.eval()


def bare_scoring(network: TaskNetwork, images: LoadedImages) -> None:
    """Only the forward passes."""
    for batch, _ in images.batches(
        torch.split(torch.arange(len(images)), network.prediction_batch_size)
    ):
        network.predict(batch)


if __name__ == "__main__":
    main()
