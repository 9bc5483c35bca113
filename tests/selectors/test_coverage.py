"""The rewards of the nearest image compared with loops over all pairs, and with results by hand."""

import pytest
import torch

from cdal.selectors.core_set import EuclideanEmbedding
from cdal.selectors.coverage import Coverage, Spread, distance_to_labelled
from cdal.selectors.diversity import DiversityEmbedding
from cdal.selectors.synthetic import confused_pool


def a_pool(labelled):
    pool = confused_pool(30, labelled=labelled, seed=2)
    return pool, DiversityEmbedding.of(pool.mixtures, pool.present)


def distances(embedding):
    every = torch.arange(len(embedding))
    return embedding.distances(every, every).double()


def caps(pool, embedding):
    """Each image's distance to the nearest labelled image, or to an average one."""
    matrix = distances(embedding)
    return matrix[:, pool.labelled].min(1).values if pool.labelled.any() else matrix.mean(1)


def coverage(pool, embedding, picks):
    matrix, cap = distances(embedding), caps(pool, embedding)
    images = [i for i in range(len(pool)) if not pool.labelled[i]]
    left = sum(min([float(cap[i]), *(float(matrix[i, j]) for j in picks)]) for i in images)
    return 1 - left / sum(float(cap[i]) for i in images)


def spread(pool, embedding, picks, divisor):
    matrix, cap = distances(embedding), caps(pool, embedding)
    nearest = (min([float(cap[j]), *(float(matrix[j, k]) for k in picks if k != j)]) for j in picks)
    return sum(nearest) / divisor / float(cap[~pool.labelled].mean())


@pytest.mark.parametrize("labelled", [0, 1, 7])
@pytest.mark.parametrize("count", [1, 2, 9])
def test_values_and_credits_are_those_of_the_loops(labelled, count):
    """A credit is what the value would fall by without the pick."""
    pool, embedding = a_pool(labelled)
    picks = pool.unlabelled[:count]
    listed = picks.tolist()
    rests = [[k for k in listed if k != j] for j in listed]
    for reward, expected in (
        (Coverage(embedding, pool.labelled), lambda some: coverage(pool, embedding, some)),
        (Spread(embedding, pool.labelled), lambda some: spread(pool, embedding, some, count)),
    ):
        whole = expected(listed)
        assert reward.value(picks) == pytest.approx(whole, rel=1e-4, abs=1e-6)
        falls = [whole - expected(rest) for rest in rests]
        assert reward.credit(picks).tolist() == pytest.approx(falls, rel=1e-3, abs=1e-5)
        assert reward.value(picks, pool.unlabelled) == pytest.approx(whole, rel=1e-4, abs=1e-5)


def test_coverage_by_hand():
    """Labelled at 0; squared distances to it are 1, 4 and 100. The pick at 9 leaves 1 + 4 + 1."""
    metric = EuclideanEmbedding.of(torch.tensor([[0.0], [1.0], [2.0], [10.0], [9.0]]))
    labelled = torch.tensor([True, False, False, False, False])
    reward = Coverage(metric, labelled)
    total = 1 + 4 + 100 + 81
    assert reward.value(torch.tensor([4])) == pytest.approx(1 - 6 / total, rel=1e-4)
    assert reward.value(torch.arange(1, 5)) == pytest.approx(1)
    assert reward.value(torch.tensor([], dtype=torch.int64)) == 0
    # Either of two neighbours does nearly all the work of both.
    credit = reward.credit(torch.tensor([3, 4]))
    assert credit.tolist() == pytest.approx([1 / total, 1 / total], rel=1e-3)


def test_spread_of_a_pair_of_copies_is_nothing():
    metric = EuclideanEmbedding.of(torch.tensor([[0.0], [4.0], [4.0], [6.0]]))
    reward = Spread(metric, torch.tensor([True, False, False, False]))
    assert reward.value(torch.tensor([1, 2])) == 0
    # Distances 16 and 4, of which the mean is 10; the unit is (16 + 16 + 36) / 3.
    assert reward.value(torch.tensor([1, 3])) == pytest.approx(4 / (68 / 3))
    assert reward.value(torch.tensor([], dtype=torch.int64)) == 0


@pytest.mark.parametrize("reward", [Coverage, Spread])
def test_a_pool_of_copies_has_nothing_to_gain(reward):
    metric = EuclideanEmbedding.of(torch.ones(6, 3))
    labelled = torch.tensor([True] + [False] * 5)
    found = reward(metric, labelled)
    assert found.value(torch.tensor([1, 2])) in (0, 1)
    assert found.credit(torch.tensor([1, 2])).tolist() == [0, 0]


def test_the_distance_to_the_labelled_images_is_0_for_these():
    pool, embedding = a_pool(5)
    found = distance_to_labelled(embedding, pool.labelled)
    assert (found[pool.labelled] == 0).all()
    assert torch.allclose(
        found[~pool.labelled].double(), caps(pool, embedding)[~pool.labelled], rtol=1e-4
    )
