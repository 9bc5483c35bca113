import math

import pytest
import torch
from support.equations import eq2, images_of
from support.pools import full_pool, vector_pool

from cdal.selectors import Pool
from cdal.selectors.cdal_cs import CDALCS


def two_class_pool():
    """Image 0 has only class 0, images 1 and 2 only class 1, image 3 both; 0 is labelled."""
    mixtures = torch.tensor(
        [
            [[0.9, 0.1], [0.0, 0.0]],
            [[0.0, 0.0], [0.1, 0.9]],
            [[0.0, 0.0], [0.4, 0.6]],
            [[0.8, 0.2], [0.3, 0.7]],
        ]
    )
    present = torch.tensor([[True, False], [False, True], [False, True], [True, True]])
    return Pool(mixtures, present, torch.tensor([True, False, False, False]))


def test_the_farthest_first_with_the_reason():
    pool = vector_pool([[0.5, 0.5], [0.6, 0.4], [0.9, 0.1], [0.2, 0.8]], labelled=[0])
    selection = CDALCS().select(pool, 3)
    # From (½, ½): 0.2, 1.099 = 0.2·ln 9 · 2.5 …: image 2, then 3, then 1.
    assert selection.indices == [2, 3, 1]
    first = selection.picks[0]
    # ½ (0.4 ln(0.9/0.5) + 0.4 ln(0.5/0.1))
    assert first.score == pytest.approx(0.2 * math.log(1.8) + 0.2 * math.log(5))
    assert first.reason["nearest"] == 0
    share = math.log(5) / (math.log(1.8) + math.log(5))
    assert list(first.reason["classes"]) == ["1", "0"]
    assert first.reason["classes"]["1"] == pytest.approx(share)
    assert first.reason["classes"]["0"] == pytest.approx(1 - share)


def test_to_the_letter_a_disjoint_image_is_hidden_and_with_uniform_it_is_not():
    letter = CDALCS(missing="skip").select(two_class_pool(), 1)
    assert letter.indices == [3]  # the only one that shares a class with image 0
    assert letter.picks[0].reason["classes"] == {"0": pytest.approx(1)}
    # Against uniform, image 1 is far from 0 in both of their classes.
    assert CDALCS(missing="uniform").select(two_class_pool(), 1).indices == [1]


def test_a_pool_tied_at_zero_is_warned_of():
    (warning,) = CDALCS(missing="skip").select(two_class_pool(), 1).warnings
    assert warning.startswith("At least 67% of the unlabelled images are at distance 0")
    assert CDALCS(missing="uniform").select(two_class_pool(), 1).warnings == ()


def test_one_copy_in_twenty_is_not_warned_of():
    vectors = [[0.5 + i / 50, 0.5 - i / 50] for i in range(20)]
    # One of 20 unlabelled images is a copy of the labelled one: 5%, which is not above 5%.
    assert CDALCS().select(vector_pool([vectors[0], *vectors], labelled=[0]), 1).warnings == ()
    # Two of 21 are.
    twice = vector_pool([vectors[0], vectors[0], *vectors], labelled=[0])
    assert len(CDALCS().select(twice, 1).warnings) == 1


def test_a_first_pick_at_random_has_no_nearest_and_score_zero():
    pick = CDALCS().select(full_pool(), 1, seed=3).picks[0]
    assert (pick.score, pick.reason) == (0, {"nearest": None, "classes": {}})


@pytest.mark.parametrize("missing", ["skip", "uniform"])
def test_scores_are_the_distances_to_the_nearest(missing):
    pool = full_pool(labelled=[0, 5])
    images = images_of(pool.mixtures.numpy(), pool.present.numpy())
    centres = [0, 5]
    for pick in CDALCS(missing=missing).select(pool, 20).picks:
        expected = min(eq2(images[pick.index], images[c], missing) for c in centres)
        assert pick.score == pytest.approx(expected, rel=1e-5, abs=2e-6)
        nearest = eq2(images[pick.index], images[pick.reason["nearest"]], missing)
        assert nearest == pytest.approx(expected, rel=1e-5, abs=2e-6)
        centres.append(pick.index)
