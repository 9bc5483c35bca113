"""A learning curve: a selector with its options, as one line of a plot."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, cast, get_args

from cdal.benchmark.errors import BenchmarkError
from cdal.benchmark.scores import MixtureKind
from cdal.selectors import SELECTORS, Region, Selector, Weights, make_selector, option_types

Policy = Literal["each", "once"]
"""Whether CDAL-RL's policy is trained in each round, or in the first one only."""

OF_BOXES = ("confidence", "background")
"""Options of the boxes that detectors' class mixtures are made of."""
OF_MIXTURES = ("weights", "classes", "region", *OF_BOXES)
"""Options of the class mixtures, for all selectors that look at them."""
OF_POLICY = ("reward", "alpha", "policy")
"""Options of CDAL-RL's policy."""
OPTIONS = (*OF_POLICY, *OF_MIXTURES, "missing")
"""Options that have an option of the command, too."""


@dataclass(frozen=True, slots=True)
class Curve:
    """What picks the images of one curve.

    Attributes:
        label: as it was typed, such as "cdal-cs:missing=skip"; unique in a run.
        name: of the selector.
        options: of the selector, as text.
        kind: what class mixtures it is given.
        policy: for CDAL-RL.
    """

    label: str
    name: str
    options: Mapping[str, object]
    kind: MixtureKind
    policy: Policy = "each"

    @property
    def needs_scores(self) -> bool:
        """Whether it looks at what the model says of the images."""
        return self.name != "random"

    def selector(self, policy_file: str) -> Selector:
        """The selector; a policy that is trained once is kept in that file."""
        once = {"weights": policy_file} if self.policy == "once" else {}
        return make_selector(self.name, {**self.options, **once})


def read_curves(
    text: str, shared: Mapping[str, str], task: str, classes: Sequence[str]
) -> tuple[Curve, ...]:
    """Curves from a command line.

    Args:
        text: selectors by commas, each with options, if any: "random,cdal-cs:missing=skip,
            region=image". A part with = but without : before it goes on with the options of the
            selector before it.
        shared: options, by name, for all selectors that have them and don't say otherwise.
        task: what is learnt.
        classes: of the network.

    Raises:
        BenchmarkError: the text is wrong, a shared option has no effect, or a selector is named
            twice or cannot be simulated.
        OptionError: a selector or one of its options is unknown or has an impossible value.
    """
    curves = tuple(_read(label, shared, task, classes) for label in split_labels(text))
    labels = [curve.label for curve in curves]
    twice = next((label for label in labels if labels.count(label) > 1), None)
    if twice is not None:
        raise BenchmarkError(f"The selector {twice} is named twice.")
    for option in shared:
        if not any(option in _taken(curve.name) for curve in curves):
            raise BenchmarkError(
                f"--{option} has no effect on {', '.join(labels)}: leave it out, or add a selector "
                "that has it."
            )
    return curves


def split_labels(text: str) -> list[str]:
    """The labels of the curves: see ``read_curves``."""
    labels: list[str] = []
    for part in (part.strip() for part in text.split(",")):
        if "=" in part and ":" not in part.split("=")[0] and labels and ":" in labels[-1]:
            labels[-1] += f",{part}"
        elif part:
            labels.append(part)
    if not labels:
        raise BenchmarkError("--selectors must name at least one selector.")
    return labels


def _read(label: str, shared: Mapping[str, str], task: str, classes: Sequence[str]) -> Curve:
    name, _, text = label.partition(":")
    own: dict[str, str] = {}
    for option in text.split(",") if text else ():
        key, equals, value = option.partition("=")
        if not equals or not key:
            raise BenchmarkError(f"An option of {label} must be name=value, not {option!r}.")
        own[key.strip()] = value.strip()
    if name == "bald":
        raise BenchmarkError("bald needs stochastic passes, which a simulation does not make.")
    taken = _taken(name)
    options = {key: value for key, value in shared.items() if key in taken} | own
    kind = _kind(label, options, task, classes, allowed="missing" in taken)
    policy: Policy = "each"
    if options.get("policy") in get_args(Policy) and "policy" in taken:
        policy = cast("Policy", options.pop("policy"))
    if "reward" in options and "reward" in taken:
        options["rewards"] = options.pop("reward")
    curve = Curve(label, name, options, kind, policy)
    curve.selector("unused")  # says what is wrong with the options
    return curve


def _taken(name: str) -> set[str]:
    """Which of the options of the command a selector has."""
    own = option_types(SELECTORS[name]) if name in SELECTORS else {}
    taken: set[str] = {option for option in ("alpha", "policy", "missing") if option in own}
    if "missing" in own:
        taken |= {*OF_MIXTURES}
    if "rewards" in own:
        taken.add("reward")
    return taken


def _kind(
    label: str, options: dict[str, str], task: str, classes: Sequence[str], allowed: bool
) -> MixtureKind:
    """What the options say of mixtures; these options are taken out."""
    # A classified image is its only region.
    region = "image" if task == "classification" else "class"
    kind = MixtureKind(region=cast("Region", region))
    if not allowed:
        return kind
    weights = options.pop("weights", kind.weights)
    region = options.pop("region", region)
    for option, value, values in (("weights", weights, Weights), ("region", region, Region)):
        if value not in get_args(values):
            raise BenchmarkError(
                f"{option} of {label} must be {' or '.join(get_args(values))}, not {value!r}."
            )
    return replace(
        _of_boxes(label, options, task, kind),
        region=cast("Region", region),
        weights=cast("Weights", weights),
        classes=_indices(label, options.pop("classes", None), classes),
    )


def _of_boxes(label: str, options: dict[str, str], task: str, kind: MixtureKind) -> MixtureKind:
    """The kind with what the options say of boxes; these options are taken out."""
    given = {name: options.pop(name) for name in OF_BOXES if name in options}
    if given and task != "detection":
        raise BenchmarkError(f"{next(iter(given))} of {label} is of boxes: there are none here.")
    background = given.get("background", "drop")
    if background not in ("drop", "keep"):
        raise BenchmarkError(f"background of {label} must be drop or keep, not {background!r}.")
    try:
        confidence = float(given.get("confidence", kind.confidence))
    except ValueError:
        confidence = math.nan
    if not 0 <= confidence <= 1:
        raise BenchmarkError(
            f"confidence of {label} must be from 0 to 1, not {given['confidence']!r}."
        )
    return replace(kind, confidence=confidence, background=background == "keep")


def _indices(label: str, text: str | None, classes: Sequence[str]) -> tuple[int, ...] | None:
    """Names of classes, joined by +, as indices."""
    if text is None:
        return None
    names = [name.strip() for name in text.split("+")]
    unknown = [name for name in names if name not in classes]
    if unknown:
        raise BenchmarkError(
            f"classes of {label} must be some of {', '.join(classes)}, joined by +; "
            f"{unknown[0]!r} is none of them."
        )
    return tuple(sorted({list(classes).index(name) for name in names}))
