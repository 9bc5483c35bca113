"""Ready-made ablations: one thing left out or changed at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from cdal.benchmark.errors import BenchmarkError


@dataclass(frozen=True, slots=True)
class Ablation:
    """Several curves in one run, or the same curves in several runs.

    Attributes:
        what: a short description, with the place in the paper (CDAL, ECCV 2020).
        selectors: the curves; {0}, {1} and {2} stand for class names.
        option: the option of the command that varies between runs; None for a single run.
        values: the values of that option, as text; by task if they depend on it.
        read: converts the text of a value to the option's type.
    """

    what: str
    selectors: str
    option: str | None = None
    values: tuple[str, ...] | Mapping[str, tuple[str, ...]] = ()
    read: Callable[[str], object] = str

    def values_for(self, task: Callable[[], str]) -> tuple[str, ...]:
        """The values of the option; ``task`` is called if they depend on it."""
        return self.values if isinstance(self.values, tuple) else self.values[task()]

    def labels(self, classes: Sequence[str]) -> str:
        """The curves, with these class names filled in.

        Raises:
            BenchmarkError: there are too few classes.
        """
        try:
            return self.selectors.format(*classes)
        except IndexError:
            raise BenchmarkError("This ablation needs at least three classes.") from None


_RIVALS = "random,core-set,cdal-cs,cdal-rl"

ABLATIONS: Mapping[str, Ablation] = {
    "reward": Ablation(
        "parts of CDAL-RL's reward (section 5, figure 6)",
        "random,cdal-rl:reward=cd,cdal-rl:reward=cd+vr,cdal-rl:reward=cd+vr+sr",
    ),
    "alpha": Ablation(
        "weight of CD in the reward (section 10, table 2)",
        "random,cdal-rl:alpha=0.25,cdal-rl:alpha=0.5,cdal-rl:alpha=0.75",
    ),
    "mixture-weights": Ablation(
        "regions weighted by entropy or equally (section 10.1)",
        "random,cdal-cs:weights=entropy,cdal-cs:weights=uniform,"
        "cdal-rl:weights=entropy,cdal-rl:weights=uniform",
    ),
    "classes": Ablation(
        "CD of no, one, two and three classes (section 5, figure 7b), chosen by --classes",
        "random,cdal-rl:reward=vr,cdal-rl:reward=cd+vr,classes={0},"
        "cdal-rl:reward=cd+vr,classes={0}+{1},cdal-rl:reward=cd+vr,classes={0}+{1}+{2}",
    ),
    "policy-once": Ablation(
        "CDAL-RL's policy trained in each round or once (section 5, figure 6)",
        "random,cdal-cs,cdal-rl:policy=each,cdal-rl:policy=once",
    ),
    "missing": Ablation(
        "how to treat classes that only one of two images has",
        "random,cdal-cs:missing=uniform,cdal-cs:missing=skip,"
        "cdal-rl:missing=uniform,cdal-rl:missing=skip",
    ),
    "region": Ablation(
        "one mixture per pseudo-label, or one per image",
        "random,cdal-cs:region=class,cdal-cs:region=image,"
        "cdal-rl:region=class,cdal-rl:region=image",
    ),
    "boxes": Ablation(
        "which boxes of a detector are regions, with or without background",
        "random,cdal-cs:confidence=0.05,cdal-cs:confidence=0.5,cdal-cs:background=keep,"
        "cdal-cs:confidence=0.5,background=keep",
    ),
    "biased-initial": Ablation(
        "classes left out of the initial set (section 9, figure 9a and b)",
        _RIVALS,
        "bias",
        ("0", "1", "2"),
        read=int,
    ),
    "noise": Ablation(
        "wrong labels (section 9, figure 9c)",
        _RIVALS,
        "noise",
        ("0", "0.1", "0.2", "0.3"),
        read=float,
    ),
    "step": Ablation(
        "images labelled per step (section 9, figure 9d)", _RIVALS, "step", ("2.5%", "5%", "10%")
    ),
    "network": Ablation(
        "other networks (section 9, figure 10)",
        _RIVALS,
        "network",
        {
            "classification": ("vgg16", "resnet18", "mobilenet_v3_small"),
            "segmentation": (
                "drn_d_22",
                "deeplabv3_mobilenet_v3_large",
                "lraspp_mobilenet_v3_large",
            ),
            "detection": ("ssd300_vgg16", "ssdlite320_mobilenet_v3_large"),
        },
    ),
}
"""The ablations by name."""
