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
        values: the values of that option, as text, for a task and a number of classes.
        read: converts the text of a value to the option's type.
    """

    what: str
    selectors: str
    option: str | None = None
    values: Callable[[str, int], tuple[str, ...]] = lambda task, classes: ()  # noqa: ARG005
    read: Callable[[str], object] = str

    def check(self, name: str, given: Mapping[str, object]) -> None:
        """Check that nothing is given that this ablation chooses itself.

        Args:
            name: of this ablation.
            given: "selectors", "values" and the option that varies; None where not given.

        Raises:
            BenchmarkError: an option would have no effect; the message names it.
        """
        if self.option is None:
            if given["selectors"] is not None:
                raise BenchmarkError(
                    f"--selectors has no effect: the curves of {name} are {self.selectors}."
                )
            if given["values"] is not None:
                raise BenchmarkError(f"--values has no effect: {name} is a single run.")
        elif given[self.option] is not None:
            raise BenchmarkError(
                f"--{self.option} varies in {name}; choose its values by --values "
                f"{given[self.option]}."
            )

    def read_values(self, text: str) -> tuple[str, ...]:
        """Parse values from the command line.

        Raises:
            BenchmarkError: there is none, one occurs twice, or one is of the wrong type.
        """
        values = tuple(value.strip() for value in text.split(",") if value.strip())
        read = set()
        for value in values:
            try:
                read.add(self.read(value))
            except ValueError:
                raise BenchmarkError(
                    f"--values must be values of --{self.option}, not {value!r}."
                ) from None
        if not values or len(read) < len(values):
            raise BenchmarkError(f"--values must be different values of --{self.option}.")
        return values

    def labels(self, classes: Sequence[str]) -> str:
        """The curves, with these class names filled in.

        Raises:
            BenchmarkError: there are too few classes.
        """
        try:
            return self.selectors.format(*classes)
        except IndexError:
            raise BenchmarkError("This ablation needs at least three classes.") from None


DEFAULT_SELECTORS = "random,entropy,core-set,cdal-cs,cdal-rl"
"""The curves of a run for which none are requested."""

_RIVALS = "random,core-set,cdal-cs,cdal-rl"
_MANY_CLASSES = 100
"""From so many on, as many classes are left out as in the paper, which has CIFAR-100."""
_OF_IMAGES = ("vgg16_bn", "resnet18", "mobilenet_v3_small")
_NETWORKS: Mapping[str, tuple[str, ...]] = {
    "classification": _OF_IMAGES,
    "multilabel": _OF_IMAGES,
    "segmentation": ("drn_d_22", "deeplabv3_mobilenet_v3_large", "lraspp_mobilenet_v3_large"),
    "detection": ("ssd300_vgg16", "ssdlite320_mobilenet_v3_large"),
}


def _left_out(task: str, classes: int) -> tuple[str, ...]:  # noqa: ARG001
    return ("0", "10", "20") if classes >= _MANY_CLASSES else ("0", "1", "2")


def _always(*values: str) -> Callable[[str, int], tuple[str, ...]]:
    return lambda task, classes: values  # noqa: ARG005


ABLATIONS: Mapping[str, Ablation] = {
    "reward": Ablation(
        "parts of CDAL-RL's reward (section 5, figure 6)",
        "random,cdal-rl:reward=cd,cdal-rl:reward=cd+vr,cdal-rl:reward=cd+vr+sr",
    ),
    "alpha": Ablation(
        "weight of CD in the reward (section 10, table 2)",
        "random,cdal-rl:reward=cd+vr,alpha=0.25,cdal-rl:reward=cd+vr,alpha=0.5,"
        "cdal-rl:reward=cd+vr,alpha=0.75",
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
        _left_out,
        read=int,
    ),
    "noise": Ablation(
        "wrong labels (section 9, figure 9c)",
        _RIVALS,
        "noise",
        _always("0", "0.1", "0.2", "0.3"),
        read=float,
    ),
    "step": Ablation(
        "images labelled per step (section 9, figure 9d)",
        _RIVALS,
        "step",
        _always("2.5%", "5%", "10%"),
    ),
    "network": Ablation(
        "other networks (section 9, figure 10)",
        _RIVALS,
        "network",
        lambda task, classes: _NETWORKS[task],  # noqa: ARG005
    ),
}
"""The ablations by name."""
