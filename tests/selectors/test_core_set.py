import dataclasses

import pytest
import torch
from support.pools import vector_pool

from cdal.selectors.core_set import CoreSet


def test_the_farthest_feature_first():
    pool = vector_pool([[0.5, 0.5]] * 4, labelled=[0])
    features = torch.tensor([[0.0, 0.0], [1.0, 0.0], [3.0, 4.0], [0.0, 2.0]])
    selection = CoreSet().select(dataclasses.replace(pool, features=features), 3)
    assert selection.indices == [2, 3, 1]
    assert [pick.score for pick in selection.picks] == [5, 2, 1]
    assert [pick.reason["nearest"] for pick in selection.picks] == [0, 0, 0]


def test_a_first_pick_at_random_has_no_nearest_and_score_zero():
    pool = dataclasses.replace(vector_pool([[0.5, 0.5]] * 3), features=torch.eye(3))
    first, second, third = CoreSet().select(pool, 3, seed=1).picks
    assert (first.score, first.reason["nearest"]) == (0, None)
    assert second.reason["nearest"] == first.index
    assert second.score == third.score == pytest.approx(2**0.5)
