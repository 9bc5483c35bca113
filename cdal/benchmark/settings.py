"""What a simulation was asked to do, as it is kept beside its results."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from cdal.benchmark.errors import BenchmarkError


@dataclass(frozen=True, slots=True)
class Settings:
    """A simulation, with nothing left open but what a recipe chooses for each training.

    Attributes:
        dataset: the path as it was given.
        images: fingerprint of classes and names; tells data sets apart wherever they lie.
        task: of the network.
        protocol: the paper's that is followed, such as "cifar-10".
        selectors: labels of the curves, in order.
        options: of all selectors that have them, by name, as text.
        initial, step, until: amounts as text.
        budgets: what they come to: the sizes of the labelled set.
        seeds: how many: 0, 1, …
        network: the architecture.
        image_size: the side S of its images.
        pretrained: whether it starts from pretrained weights.
        epochs, batch_size, learning_rate: of a training; None: as its recipe has it.
        warm_start: go on from the last step's weights, instead of from the start.
        device: "cpu" or "cuda".
        limit, test_limit: so many images of the pool and to test with, at most.
        bias: classes that are left out of the initial set.
        noise: share of wrong labels.
        unlabelled: "background" or "ignore".
        keep_scores: whether what the models say of the pool is kept.
        oracle: whether the pool is scored by a network that has learnt all its labels.
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
    bias: int
    noise: float
    unlabelled: str
    keep_scores: bool
    oracle: bool

    def to_dict(self) -> dict[str, Any]:
        """JSON data."""
        return asdict(self)

    def differences(self, before: Mapping[str, Any]) -> list[str]:
        """In what these settings don't go on with others, given as JSON data."""
        return [
            f"{name} was {before.get(name)!r} and is {value!r}"
            for name, value in _plain(self.to_dict()).items()
            if name != "dataset" and not _goes_on(name, before.get(name), value)
        ]

    def check_goes_on(self, before: Mapping[str, Any], folder: str) -> None:
        """Make sure that these settings go on with what others began.

        More selectors or seeds add runs, and leave those that are done as they are.

        Args:
            before: the others, as JSON data.
            folder: where their results are.

        Raises:
            BenchmarkError: they differ; the message names each difference.
        """
        differences = self.differences(before)
        if differences:
            raise BenchmarkError(
                f"{folder} holds a simulation with other settings: {'; '.join(differences)}. "
                "Call it with those, or give another --out."
            )


def _goes_on(name: str, before: Any, now: Any) -> bool:
    if name == "seeds" and isinstance(before, int):
        return bool(now >= before)
    if name == "selectors" and isinstance(before, list):
        return set(before) <= set(now)
    return bool(before == now)


def _plain(data: Mapping[str, Any]) -> dict[str, Any]:
    """As JSON gives it back."""
    return {key: list(value) if isinstance(value, tuple) else value for key, value in data.items()}
