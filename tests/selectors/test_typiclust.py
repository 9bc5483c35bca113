import dataclasses
import math

import pytest
import torch
from support.pools import vector_pool

from cdal.selectors.typiclust import TypiClust


def at_angles(degrees, labelled=()):
    """Images with features of any length in these directions."""
    angles = torch.deg2rad(torch.tensor(degrees, dtype=torch.float32))
    features = (
        torch.stack([angles.cos(), angles.sin()], 1) * (1 + torch.arange(len(degrees)))[:, None]
    )
    return dataclasses.replace(
        vector_pool([[0.5, 0.5]] * len(degrees), labelled), features=features
    )


LARGE = [0, 1, 2, 3, 4, 5, 6]
MIDDLE = [90, 92, 94, 96, 98, 100]
OUTLIER = [200]


@pytest.mark.parametrize("seed", range(5))
def test_the_middle_of_the_largest_cluster_first(seed):
    first, second, third = TypiClust().select(at_angles(LARGE + MIDDLE + OUTLIER), 3, seed).picks
    assert first.index == 3
    assert first.reason == {"cluster": 7, "covered": 0}
    assert second.index in (9, 10)
    assert second.reason == {"cluster": 6, "covered": 0}
    # A cluster of a single image comes after those that have a pick already.
    assert third.index in (2, 4)
    assert third.reason == {"cluster": 7, "covered": 1}


@pytest.mark.parametrize("seed", range(5))
def test_a_cluster_with_a_label_waits(seed):
    pool = at_angles(LARGE + MIDDLE, labelled=[0])
    (pick,) = TypiClust().select(pool, 1, seed).picks
    assert pick.index in (9, 10)
    assert pick.reason == {"cluster": 6, "covered": 0}


def test_typicality_is_the_inverse_of_the_mean_distance_to_the_neighbours():
    (pick,) = TypiClust(neighbours=2).select(at_angles([0, 1, 3, 7, 12, 20]), 1).picks
    assert pick.index == 1
    chords = [2 * math.sin(math.radians(angle) / 2) for angle in (1, 2)]
    assert pick.score == pytest.approx(1 / (sum(chords) / 2 + 1e-5), rel=1e-4)


def test_the_number_of_clusters_has_a_limit():
    picks = TypiClust(max_clusters=1).select(at_angles(LARGE + MIDDLE), 3).picks
    assert [pick.reason for pick in picks] == [
        {"cluster": 13, "covered": covered} for covered in range(3)
    ]
    assert [pick.score for pick in picks] == sorted((pick.score for pick in picks), reverse=True)
