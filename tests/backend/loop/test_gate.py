"""The gate: which model serves, on what evidence, and how often it errs."""

from __future__ import annotations

from hashlib import sha256
from itertools import product
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from support.annotated import control_of

from cdal.backend.annotations.rectangles import BoxesTruth
from cdal.backend.loop.gate import CHANCE, Serving, compare_with_serving, judge
from cdal.backend.loop.labels_saved import values_of_confusions
from cdal.backend.loop.paired import (
    Paired,
    compare,
    compare_judgements,
    tally_scores,
    value_of,
)
from cdal.backend.loop.training_images import LabelledImage, TrainingImages
from cdal.backend.loop.version_images import VersionImages
from cdal.models import Metrics


def metrics(value: float, images: int = 20) -> Metrics:
    return Metrics("accuracy", {"accuracy": value}, {}, (), images)


def paired(after: float, before: float, chance: float = 0.01) -> Paired:
    return Paired("accuracy", 40, before, after, chance, "held-out images")


# Verdicts.


def test_the_first_version_serves() -> None:
    verdict = judge(metrics(0.1), None, 0.02, first=True)
    assert verdict.promoted
    assert "first to be measured; accuracy 0.100 on 20 held-out images" in verdict.why


def test_without_held_out_images_it_serves_and_says_that_it_was_not_measured() -> None:
    verdict = judge(None, None, 0.02, first=False)
    assert verdict.promoted
    assert "no held-out images yet" in verdict.why


def test_one_that_cannot_be_compared_fairly_serves_and_says_so() -> None:
    verdict = judge(metrics(0.5), None, 0.02, first=False)
    assert verdict.promoted
    assert "uncompared" in verdict.why
    assert "0.500" in verdict.why


def test_a_better_one_serves() -> None:
    verdict = judge(metrics(0.8), paired(0.8, 0.7), 0.02, first=False)
    assert verdict.promoted
    assert "accuracy 0.800, before it 0.700" in verdict.why
    assert "40 held-out images" in verdict.why


def test_a_worse_one_is_kept_and_does_not_serve_and_says_how_sure_that_is() -> None:
    verdict = judge(metrics(0.6), paired(0.6, 0.7, chance=0.031), 0.02, first=False)
    assert not verdict.promoted
    assert "accuracy 0.600, before it 0.700" in verdict.why
    assert "3% of cases" in verdict.why


def test_detectors_are_not_compared_on_images_without_an_object() -> None:
    """All of them have the same average precision there."""
    nothing = BoxesTruth(("cat",), np.zeros((0, 4), np.float32), np.zeros(0, np.int64))
    reader: Any = None
    images = TrainingImages(reader, [LabelledImage(1, "", nothing, b"x" * 16)])
    network: Any = SimpleNamespace(task="detection", classes=("cat",))
    serving = Serving(network, ("cat",), VersionImages(frozenset()))
    control = control_of("RectangleLabels", ["cat"])
    found = compare_with_serving(network, {}, serving, images, images, control, lambda: False)
    assert found is None
    assert "object" in judge(metrics(0.0), found, 0.02, first=False).why


@pytest.mark.parametrize(("images", "promoted"), [(1, True), (2, True), (3, False)])
def test_where_no_drop_could_ever_count_the_verdict_says_so(images: int, promoted: bool) -> None:
    """Heads for masks and boxes are not cross-validated: of ten labels, two may be held out."""
    right, wrong = np.zeros((2, images, 3, 2))
    right[:] = 10
    wrong[:, 1:] = 10
    found = compare(
        "miou", lambda swapped: tally_scores(wrong, right, "miou", swapped), images, 2000, "images"
    )
    assert (found.before, found.after) == (1, 0)
    verdict = judge(None, found, 0.02, first=False)
    assert verdict.promoted == promoted
    assert ("too few to tell" in verdict.why) == promoted
    assert "before it 1.000" in verdict.why


@pytest.mark.parametrize(("chance", "promoted"), [(CHANCE, False), (CHANCE + 0.01, True)])
def test_a_drop_that_may_be_chance_keeps_nobody_from_serving(chance: float, promoted: bool) -> None:
    verdict = judge(metrics(0.6), paired(0.6, 0.7, chance), 0.02, first=False)
    assert verdict.promoted == promoted
    assert ("chance" in verdict.why) == promoted


@pytest.mark.parametrize(
    ("after", "tolerance", "promoted"),
    [
        (0.5, 0.25, True),  # worse by the tolerance exactly (all three are exact in binary)
        (0.4999, 0.25, False),
        (0.75, 0.0, True),
        (0.7499, 0.0, False),
        (0.0, 1.0, True),
    ],
)
def test_the_edge_of_the_tolerance(after: float, tolerance: float, promoted: bool) -> None:
    assert judge(None, paired(after, 0.75), tolerance, first=False).promoted == promoted


# The test behind them.


def outcomes(right: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Tallies of images that are right or wrong, (N, 3, 1)."""
    tallies = np.ones((len(np.asarray(right)), 3, 1))
    tallies[:, 0, 0] = right
    return tallies


def accuracy_chance(after: npt.ArrayLike, before: npt.ArrayLike, swaps: int = 2000) -> Paired:
    new, old = outcomes(after), outcomes(before)
    return compare(
        "accuracy", lambda s: tally_scores(new, old, "accuracy", s), len(new), swaps, "images"
    )


@pytest.mark.parametrize(
    ("worse", "better", "chance"),
    # The mid-p value of the sign test: P(X > worse) + P(X = worse) / 2 of worse + better coins.
    [(1, 0, 1 / 4), (3, 0, 1 / 16), (4, 1, 7 / 64), (8, 2, 67 / 2048)],
)
def test_for_accuracy_it_is_mcnemars_test(worse: int, better: int, chance: float) -> None:
    after = [0] * worse + [1] * better + [1] * 5 + [0] * 5
    before = [1] * worse + [0] * better + [1] * 5 + [0] * 5
    found = accuracy_chance(after, before, 20_000)
    assert found.chance == pytest.approx(chance, abs=0.01)
    assert found.images == worse + better + 10
    assert found.before - found.after == pytest.approx((worse - better) / found.images)


def test_no_drop_needs_no_test() -> None:
    assert accuracy_chance([1, 0], [0, 1]).chance == 1
    assert accuracy_chance([1, 1], [0, 1]).chance == 1


def test_the_mean_iou_is_swapped_image_by_image() -> None:
    """All 2^3 ways to swap three images, against a computation of their own."""
    draws = np.random.default_rng(0)
    matrices = draws.integers(0, 9, (2, 3, 4, 4)).astype(float)
    tallies = [np.stack([m.diagonal(axis1=1, axis2=2), m.sum(2), m.sum(1)], 1) for m in matrices]
    cases = np.array(list(product([False, True], repeat=3)))
    found = tally_scores(tallies[0], tallies[1], "miou", cases)
    for case, values in zip(cases, found, strict=True):
        for side, value in enumerate(values):
            chosen = [matrices[side ^ int(swap), image] for image, swap in enumerate(case)]
            whole = np.array([1, 1, 1])
            (expected,) = values_of_confusions(np.array(chosen), whole[None], "miou")
            assert value == pytest.approx(expected)
    sums = tallies[0].sum(0)[None]
    (accuracy,) = values_of_confusions(matrices[0], np.ones((1, 3), np.int64), "accuracy")
    assert value_of(sums, "accuracy") == pytest.approx(accuracy)


def refused(images: int, worse: float, better: float, trials: int = 200) -> float:
    """The share of versions that the gate refuses, where this share of images changes sides.

    Each image is right before and wrong after with the chance `worse`, the reverse with `better`.
    """
    draws = np.random.default_rng(images)
    count = 0
    for _ in range(trials):
        kind = draws.choice(3, images, p=[worse, better, 1 - worse - better])
        after, before = kind != 0, kind != 1
        found = accuracy_chance(after, before, 200)
        count += not judge(None, found, 0.02, first=False).promoted
    return count / trials


def test_an_equally_good_version_is_seldom_refused() -> None:
    assert [refused(n, 0.1, 0.1) < 0.14 for n in (10, 30, 100, 300)] == [True] * 4


def test_one_that_is_15_points_worse_is_refused_ever_more_surely() -> None:
    shares = [refused(n, 0.2, 0.05) for n in (10, 30, 100, 300)]
    assert shares == sorted(shares)
    assert shares[1] > 0.5
    assert shares[2] > 0.9
    assert shares[3] > 0.99


# Judgements by cross-validation.


def content(number: int) -> bytes:
    return sha256(str(number).encode()).digest()[:16]


def test_judgements_are_compared_on_images_that_both_have_judged() -> None:
    truths = {content(n): n % 3 for n in range(50)}
    new = {content(n): n % 3 if n < 30 else 0 for n in range(10, 60)}
    old = {content(n): n % 3 for n in range(40)}
    found = compare_judgements(truths, new, old)
    assert found is not None
    assert found.images == 30
    # Of 30 to 39, those are right that are 0 modulo 3: 30, 33, 36 and 39.
    assert (found.before, found.after) == (1, pytest.approx(24 / 30))
    assert found.chance < 0.02
    assert "cross-validated" in found.how
    assert compare_judgements(truths, new, {}) is None


def test_what_is_recorded_of_a_version_is_read_again() -> None:
    record = VersionImages(
        frozenset(content(n) for n in range(5)), {content(7): 0, content(3): 65_535}
    )
    row = record.row(1)

    class Rows:
        def get(self, _: object, number: int) -> object:
            return row if number == 1 else None

    rows = Rows()
    assert VersionImages.read(rows, 1) == record  # type: ignore[arg-type]
    assert VersionImages.read(rows, 2) is None  # type: ignore[arg-type]
    assert VersionImages.read(rows, None) is None  # type: ignore[arg-type]
