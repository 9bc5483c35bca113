from __future__ import annotations

import pytest

from cdal.benchmark.curve import Curve, read_curves, split_labels
from cdal.benchmark.errors import BenchmarkError
from cdal.mixture_kind import MixtureKind
from cdal.selectors import OptionError

CLASSES = ("car", "road", "sky")


def curve(text: str, task: str = "segmentation", **shared: str) -> Curve:
    (read,) = read_curves(text, shared, task, CLASSES)
    return read


def test_options_go_on_behind_a_comma() -> None:
    assert split_labels("random, cdal-cs:missing=skip,region=image,entropy") == [
        "random",
        "cdal-cs:missing=skip,region=image",
        "entropy",
    ]


def test_a_curve_without_options() -> None:
    assert curve("cdal-cs") == Curve("cdal-cs", "cdal-cs", {}, MixtureKind("class"))
    assert curve("cdal-cs", "classification").kind == MixtureKind("image")


def test_options_of_the_mixtures_and_of_the_selector() -> None:
    read = curve("cdal-cs:missing=skip,region=image,weights=uniform,classes=sky+car")
    assert read.options == {"missing": "skip"}
    assert read.kind == MixtureKind("image", "uniform", (0, 2))


def test_a_subset_of_the_classes_restricts_the_reward_and_not_what_the_policy_reads() -> None:
    read = curve("cdal-rl:classes=sky+car,weights=uniform")
    assert read.kind == MixtureKind("class", "uniform")
    assert read.options == {"classes": (0, 2)}
    assert getattr(read.selector("file"), "classes") == (0, 2)  # noqa: B009
    per_image = curve("cdal-rl:classes=sky+car,region=image")
    assert per_image.kind == MixtureKind("image", classes=(0, 2))
    assert per_image.options == {}


def test_options_of_the_policy() -> None:
    read = curve("cdal-rl:reward=cd+vr,alpha=0.5,policy=once")
    assert read.options == {"rewards": "cd+vr", "alpha": "0.5"}
    assert read.policy == "once"
    assert str(getattr(read.selector("file"), "weights")) == "file"  # noqa: B009


def test_the_kind_of_a_policy_is_the_selectors_own_option() -> None:
    read = curve("cdal-rl:policy=paper")
    assert read.policy == "each"
    assert read.options == {"policy": "paper"}


def test_options_of_boxes() -> None:
    assert curve("cdal-cs", "detection").kind == MixtureKind("class", confidence=0.05)
    read = curve("cdal-cs:confidence=0.5,background=keep", "detection")
    assert read.kind == MixtureKind("class", confidence=0.5, background=True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cdal-cs:confidence=2", "confidence of cdal-cs:confidence=2 must be from 0 to 1, not '2'"),
        ("cdal-cs:confidence=nan", "must be from 0 to 1, not 'nan'"),
        ("cdal-cs:confidence=much", "must be from 0 to 1, not 'much'"),
        ("cdal-cs:background=no", "background of cdal-cs:background=no must be drop or keep"),
    ],
)
def test_wrong_options_of_boxes_are_refused(text: str, message: str) -> None:
    with pytest.raises(BenchmarkError, match=message):
        curve(text, "detection")


def test_shared_options_reach_those_that_have_them_and_say_nothing() -> None:
    curves = read_curves(
        "random,cdal-cs,cdal-rl:missing=uniform",
        {"missing": "skip", "alpha": "0.25"},
        "segmentation",
        CLASSES,
    )
    assert [read.options for read in curves] == [
        {},
        {"missing": "skip"},
        {"missing": "uniform", "alpha": "0.25"},
    ]


@pytest.mark.parametrize(
    ("text", "shared", "message"),
    [
        ("", {}, "at least one selector"),
        ("random,random", {}, "random is named twice"),
        ("random", {"alpha": "0.5"}, "--alpha has no effect on random"),
        ("cdal-rl:reward=cd+vr", {"scale": "9"}, "--scale has no effect .* cdal-rl:reward="),
        ("cdal-rl", {"sums": "raw"}, "--sums has no effect on cdal-rl"),
        ("cdal-cs:missing", {}, "must be name=value, not 'missing'"),
        ("cdal-cs:weights=no", {}, "weights of cdal-cs:weights=no must be entropy or uniform"),
        ("cdal-cs:classes=car+boat", {}, "'boat' is not one of them"),
        ("dropquery", {}, "an image has many"),
        ("cdal-cs:confidence=0.5", {}, "confidence of cdal-cs:confidence=0.5 applies to boxes"),
    ],
)
def test_wrong_curves_are_refused(text: str, shared: dict[str, str], message: str) -> None:
    with pytest.raises(BenchmarkError, match=message):
        read_curves(text, shared, "segmentation", CLASSES)


@pytest.mark.parametrize(
    ("text", "option"),
    [
        ("cdal-rl:reward=cd+sr", "scale"),
        ("cdal-rl:reward=cd", "sums"),
        ("cdal-rl:policy=paper", "sums"),
        ("cdal-rl:reward=paper", "sums"),
    ],
)
def test_options_of_parts_of_the_reward_apply_to_those_that_have_them(
    text: str, option: str
) -> None:
    value = {"scale": "9", "sums": "raw"}[option]
    (read,) = read_curves(text, {option: value}, "segmentation", CLASSES)
    assert read.options[option] == value


def test_opinions_of_classes_that_do_not_exclude_each_other_are_refused() -> None:
    with pytest.raises(BenchmarkError, match="bald compares opinions"):
        read_curves("bald", {}, "multilabel", CLASSES)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rndom", 'unknown selector "rndom"'),
        ("random:region=image", 'random has no option "region"'),
        ("cdal-cs:missing=no", '"missing" of cdal-cs must be "skip" or "uniform"'),
        ("cdal-rl:policy=twice", '"policy" of cdal-rl must be'),
        ("cdal-rl:reward=cd+no", "'no' is not one"),
    ],
)
def test_the_selectors_own_words_are_kept(text: str, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        curve(text)
