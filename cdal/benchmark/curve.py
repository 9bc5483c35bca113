"""A learning curve: a selector with its options, as one line of a plot."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, cast, get_args

from cdal.benchmark.errors import BenchmarkError
from cdal.mixture_kind import MixtureKind
from cdal.selectors import (
    SELECTORS,
    Companion,
    Opinions,
    Region,
    Selector,
    Weights,
    companion_of,
    make_selector,
    opinions_of,
    option_types,
)

Policy = Literal["each", "once"]
"""Whether CDAL-RL's policy is trained in each round, or only in the first."""

OF_BOXES = ("confidence", "background")
"""Options of the boxes in a detector's class mixtures."""
OF_MIXTURES = ("weights", "classes", "region", *OF_BOXES)
"""Options of the class mixtures, for all selectors that use them."""
OF_POLICY = ("reward", "alpha", "policy", "scale", "sums")
"""Options of CDAL-RL's policy."""
OF_ONE_REGION = ("dropquery",)
"""Selectors that compare opinions about the class of an image, and not of its regions."""
NEEDED: Mapping[str, str] = {"scale": "sr", "sums": "cd+vr+sr"}
"""Options of CDAL-RL that only concern these parts of its reward."""
OPTIONS = (*OF_POLICY, *OF_MIXTURES, "missing")
"""Options that the command has as well, for all selectors."""


@dataclass(frozen=True, slots=True)
class Curve:
    """The selector of one curve.

    Attributes:
        label: as typed, such as "cdal-cs:missing=skip"; unique in a run.
        name: of the selector.
        options: of the selector, as text.
        kind: the class mixtures it is given.
        policy: for CDAL-RL.
    """

    label: str
    name: str
    options: Mapping[str, object]
    kind: MixtureKind
    policy: Policy = "each"

    @property
    def needs_scores(self) -> bool:
        """Whether it uses the model's scores."""
        return self.name != "random"

    @property
    def opinions(self) -> Opinions | None:
        """Whose opinions about each image it needs, if any."""
        return opinions_of(self.name)

    @property
    def companion(self) -> Companion | None:
        """What must be trained beside the network for it, if anything."""
        return companion_of(self.name)

    @property
    def of_regions(self) -> bool:
        """Whether it picks regions only, and not whole images."""
        return bool(getattr(SELECTORS[self.name], "of_regions", False))

    def selector(self, policy_file: str) -> Selector:
        """Make the selector; a policy trained once is kept in ``policy_file``."""
        once = {"weights": policy_file} if self.policy == "once" else {}
        return make_selector(self.name, {**self.options, **once})


def read_curves(
    text: str,
    shared: Mapping[str, str],
    task: str,
    classes: Sequence[str],
    base: Mapping[str, str] | None = None,
) -> tuple[Curve, ...]:
    """Parse the curves of a command line.

    Args:
        text: selectors separated by commas, each with its options: "random,cdal-cs:missing=skip,
            region=image". A part with = but no : before it is another option of the selector
            before it.
        shared: options, by name, for all selectors that have them and do not override them.
        task: of the network.
        classes: of the network.
        base: what shared options and those of a selector override: see ``PUBLISHED``.

    Raises:
        BenchmarkError: the text is wrong, a shared option has no effect, or a selector is named
            twice or cannot be simulated.
        OptionError: a selector or one of its options is unknown or has an impossible value.
    """
    curves = tuple(_read(label, shared, task, classes, base or {}) for label in split_labels(text))
    labels = [curve.label for curve in curves]
    twice = next((label for label in labels if labels.count(label) > 1), None)
    if twice is not None:
        raise BenchmarkError(f"The selector {twice} is named twice.")
    for option in shared:
        if not any(_heeds(curve, option) for curve in curves):
            example = NEEDED.get(option)
            raise BenchmarkError(
                f"--{option} has no effect on {', '.join(labels)}: leave it out, or add a selector "
                f"that has it{f', such as cdal-rl:reward={example}' if example else ''}."
            )
    return curves


def _heeds(curve: Curve, option: str) -> bool:
    """Whether an option of the command changes what this curve picks."""
    if option not in _taken(curve.name) - _own(curve.label):
        return False
    usual = "paper" if curve.options.get("policy") == "paper" else "spread"
    reward = str(curve.options.get("rewards", usual)).replace(" ", "").replace("paper", "cd+vr")
    needed = NEEDED.get(option, reward)
    return not {*reward.split("+")}.isdisjoint(needed.split("+"))


def split_labels(text: str) -> list[str]:
    """Split into the labels of the curves: see ``read_curves``."""
    labels: list[str] = []
    for part in (part.strip() for part in text.split(",")):
        if "=" in part and ":" not in part.split("=")[0] and labels and ":" in labels[-1]:
            labels[-1] += f",{part}"
        elif part:
            labels.append(part)
    if not labels:
        raise BenchmarkError("--selectors must name at least one selector.")
    return labels


def _own(label: str) -> set[str]:
    """The options in a curve's label."""
    _, _, text = label.partition(":")
    return {option.partition("=")[0].strip() for option in text.split(",")}


def _read(
    label: str,
    shared: Mapping[str, str],
    task: str,
    classes: Sequence[str],
    base: Mapping[str, str],
) -> Curve:
    name, _, text = label.partition(":")
    own: dict[str, str] = {}
    for option in text.split(",") if text else ():
        key, equals, value = option.partition("=")
        if not equals or not key:
            raise BenchmarkError(f"An option of {label} must be name=value, not {option!r}.")
        own[key.strip()] = value.strip()
    _check_opinions(name, task)
    taken = _taken(name)
    given = {key: value for key, value in {**base, **shared}.items() if key in taken}
    options = given | own
    kind = _kind(label, options, task, classes, allowed="missing" in taken)
    policy: Policy = "each"
    if options.get("policy") in get_args(Policy) and "policy" in taken:
        policy = cast("Policy", options.pop("policy"))
        if "policy" in base:  # which kind of policy is another question
            options["policy"] = base["policy"]
    if "reward" in options and "reward" in taken:
        options["rewards"] = options.pop("reward")
    chosen: dict[str, object] = {**options}
    if _in_reward(name, kind):
        chosen["classes"], kind = kind.classes, replace(kind, classes=None)
    curve = Curve(label, name, chosen, kind, policy)
    curve.selector("unused")  # raises if the options are wrong
    return curve


def _check_opinions(name: str, task: str) -> None:
    if name not in SELECTORS or opinions_of(name) is None:
        return
    if task == "multilabel":
        raise BenchmarkError(
            f"{name} compares opinions about classes that exclude each other, and the task is "
            f"{task}."
        )
    if name in OF_ONE_REGION and task != "classification":
        raise BenchmarkError(
            f"{name} asks which passes take an image for another class, and in {task} an image has "
            "many."
        )


def _taken(name: str) -> set[str]:
    """The options of the command that a selector has."""
    own = option_types(SELECTORS[name]) if name in SELECTORS else {}
    taken: set[str] = {
        option for option in ("alpha", "policy", "missing", "scale", "sums") if option in own
    }
    if "missing" in own:
        taken |= {*OF_MIXTURES}
    if "rewards" in own:
        taken.add("reward")
    return taken


def _kind(
    label: str, options: dict[str, str], task: str, classes: Sequence[str], allowed: bool
) -> MixtureKind:
    """Take the mixtures' options out of ``options``."""
    # In classification, the image is its only region.
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


def _in_reward(name: str, kind: MixtureKind) -> bool:
    """Whether a subset of the classes restricts CDAL-RL's reward, not what its policy reads.

    One mixture per image has no classes that could be left out later.
    """
    has = name in SELECTORS and "classes" in option_types(SELECTORS[name])
    return has and kind.classes is not None and kind.region == "class"


def _of_boxes(label: str, options: dict[str, str], task: str, kind: MixtureKind) -> MixtureKind:
    """Take the boxes' options out of ``options``, and add them to the kind."""
    given = {name: options.pop(name) for name in OF_BOXES if name in options}
    if given and task != "detection":
        raise BenchmarkError(
            f"{next(iter(given))} of {label} applies to boxes, and the task is {task}."
        )
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
    """Class names joined by +, as indices."""
    if text is None:
        return None
    names = [name.strip() for name in text.split("+")]
    unknown = [name for name in names if name not in classes]
    if unknown:
        raise BenchmarkError(
            f"classes of {label} must be some of {', '.join(classes)}, joined by +; "
            f"{unknown[0]!r} is not one of them."
        )
    return tuple(sorted({list(classes).index(name) for name in names}))
