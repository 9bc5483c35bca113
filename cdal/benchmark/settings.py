"""The settings of a simulation, as kept beside its results."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from cdal.benchmark.errors import BenchmarkError


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings of a simulation, except what a recipe chooses for each training.

    Attributes:
        dataset: the path as given.
        images: fingerprint of classes and names; identifies the data set wherever it is stored.
        task: of the network.
        protocol: the paper's protocol that is followed, such as "cifar-10".
        selectors: labels of the curves, in order.
        options: shared by all selectors that have them, by name, as text.
        initial, step, until: amounts as text.
        budgets: the resulting sizes of the labelled set.
        seeds: number of seeds: 0, 1, …
        network: the architecture.
        image_size: the side S of its images.
        pretrained: whether it starts from pretrained weights.
        epochs, batch_size, learning_rate: of each training; None for the recipe's.
        warm_start: whether to continue from the last step's weights.
        device: "cpu" or "cuda".
        limit, test_limit: maximum number of pool and test images.
        first_round: what the initial set is: "random" images, or "typical" ones.
        bias: number of classes missing from the initial set.
        noise: share of wrong labels.
        unlabelled: "background" or "ignore".
        keep_scores: whether the models' scores of the pool are kept.
        oracle: whether the pool is scored by a network trained on all its labels.
        regions: the side of the regions that are labelled, in pixels of the network's images; None
            for whole images.
        repaired: whether a protocol is followed with this project's own method.
        tile: the side of the tiles in which images are seen; None if they are seen as a whole.
    """

    dataset: str
    images: str
    task: str
    protocol: str | None
    selectors: tuple[str, ...]
    options: Mapping[str, str]
    initial: str
    step: str
    until: str
    budgets: tuple[int, ...]
    seeds: int
    network: str
    image_size: int
    pretrained: bool
    epochs: int | None
    batch_size: int | None
    learning_rate: float | None
    warm_start: bool
    device: str
    limit: int | None
    test_limit: int | None
    first_round: str
    bias: int
    noise: float
    unlabelled: str
    keep_scores: bool
    oracle: bool
    regions: int | None = None
    repaired: bool = False
    tile: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON data."""
        return asdict(self)

    def differences(self, before: Mapping[str, Any]) -> list[str]:
        """The differences that keep these settings from continuing others, given as JSON data."""
        # Older simulations had no other.
        before = {
            "first_round": "random",
            "regions": None,
            "repaired": False,
            "tile": None,
            **before,
        }
        return [
            f"{name} was {before.get(name)!r} and is {value!r}"
            for name, value in _plain(self.to_dict()).items()
            if name != "dataset" and not _continues(name, before.get(name), value)
        ]

    def check_continues(self, before: Mapping[str, Any], folder: str) -> None:
        """Check that these settings continue a simulation begun with others.

        More selectors or seeds add runs; finished runs stay as they are.

        Args:
            before: the settings it was begun with, as JSON data.
            folder: the folder of its results.

        Raises:
            BenchmarkError: they differ; the message names each difference.
        """
        differences = self.differences(before)
        if differences:
            raise BenchmarkError(
                f"{folder} holds a simulation with other settings: {'; '.join(differences)}. "
                "Use those settings, or another --out."
            )


def _continues(name: str, before: Any, now: Any) -> bool:
    if name == "seeds" and isinstance(before, int):
        return bool(now >= before)
    if name == "selectors" and isinstance(before, list):
        return set(before) <= set(now)
    return bool(before == now)


def _plain(data: Mapping[str, Any]) -> dict[str, Any]:
    """The data as JSON returns it: lists for tuples."""
    return {key: list(value) if isinstance(value, tuple) else value for key, value in data.items()}
