"""How many labels drawn at random are worth those that were selected."""

from __future__ import annotations

import numpy as np
import pytest

from cdal.backend.loop.labels_saved import (
    Confusions,
    Measured,
    draw_samples,
    estimate,
    labels_needed,
    values_of_confusions,
)


def recognised(*right: int) -> Confusions:
    """The confusion matrix of each image, for two classes: recognised or not."""
    return np.array([[[1, 0], [0, 0]] if one else [[0, 1], [0, 0]] for one in right], np.float64)


def share(right: int, images: int = 100) -> Confusions:
    return recognised(*([1] * right + [0] * (images - right)))


def measured(labels: int, confusions: Confusions, metric: str = "accuracy") -> Measured:
    samples = draw_samples(len(confusions), "classification")
    return Measured(labels, values_of_confusions(confusions, samples, metric))


@pytest.mark.parametrize(
    ("value", "labels"),
    [(0.4, 10), (0.5, 10), (0.6, 15), (0.7, 20), (0.75, 30), (0.8, 40), (0.9, 40)],
)
def test_labels_needed_lie_between_the_points_of_the_curve(value: float, labels: float) -> None:
    # The third version is worse than the second: a better one could have been kept.
    assert labels_needed([10, 20, 25, 40], [0.5, 0.7, 0.6, 0.8], value) == pytest.approx(
        {0.75: 32.5}.get(value, labels)
    )


def test_an_estimate_that_can_be_checked_by_hand() -> None:
    versions = [measured(100, share(40)), measured(200, share(60)), measured(300, share(70))]
    found = estimate(versions, measured(250, share(50)), "accuracy", 100)
    assert found["random"] == {"labels": 250, "value": 0.5}
    assert [point["value"] for point in found["curve"]] == [0.4, 0.6, 0.7]
    # Halfway between the first two versions: 150 selected labels are worth 250 random ones.
    assert (found["needed"], found["saved"]) == (150.0, 100.0)
    assert found["low"] < 100 < found["high"]
    assert (found["at_least"], found["at_most"]) == (False, False)
    assert estimate(versions, measured(250, share(50)), "accuracy", 100) == found


def test_more_images_say_more() -> None:
    def width(images: int) -> float:
        versions = [
            measured(100, share(40 * images // 100, images)),
            measured(200, share(60 * images // 100, images)),
            measured(300, share(80 * images // 100, images)),
        ]
        # It recognises others than the versions do.
        random = measured(300, share(60 * images // 100, images)[::-1])
        found = estimate(versions, random, "accuracy", images)
        return float(found["high"] - found["low"])

    assert width(1000) < width(100)


def test_outside_the_curve_it_is_a_bound() -> None:
    versions = [measured(100, share(40)), measured(200, share(60))]
    below = estimate(versions, measured(150, share(20)), "accuracy", 100)
    assert (below["saved"], below["at_least"], below["at_most"]) == (50.0, True, False)
    above = estimate(versions, measured(150, share(90)), "accuracy", 100)
    assert (above["saved"], above["at_least"], above["at_most"]) == (-50.0, False, True)


def test_where_selection_does_worse_it_says_so() -> None:
    versions = [measured(100, share(40)), measured(200, share(60))]
    found = estimate(versions, measured(80, share(50)), "accuracy", 100)
    assert found["saved"] == -70.0


def test_the_mean_intersection_over_union_is_that_of_all_pixels_together() -> None:
    # Two images of three classes, of which the third never occurs.
    pixels = np.array([[[3, 1, 0], [0, 2, 0], [0, 0, 0]], [[1, 0, 0], [2, 1, 0], [0, 0, 0]]], float)
    found = estimate(
        [measured(10, pixels, "miou"), measured(20, pixels, "miou")],
        measured(15, pixels, "miou"),
        "miou",
        2,
    )
    # cat: 4 / (5 + 6 - 4); dog: 3 / (5 + 4 - 3).
    assert found["random"]["value"] == pytest.approx((4 / 7 + 3 / 6) / 2)
