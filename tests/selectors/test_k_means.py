import numpy as np
import pytest
import torch

from cdal.selectors import k_means as module
from cdal.selectors.k_means import k_means, sample_of, unit_vectors


def blobs(each=30, seed=0):
    """Three far groups of points, in order."""
    rng = np.random.default_rng(seed)
    centres = np.array([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    points = np.repeat(centres, each, 0) + rng.normal(size=(3 * each, 2))
    return torch.from_numpy(points).float()


@pytest.mark.parametrize("seed", range(5))
def test_far_groups_are_clusters(seed):
    assigned = k_means(blobs(), 3, np.random.default_rng(seed)).view(3, 30)
    assert all(len(group.unique()) == 1 for group in assigned)
    assert sorted(assigned[:, 0].tolist()) == [0, 1, 2]


def test_no_point_is_nearer_to_another_cluster_s_mean():
    points = torch.from_numpy(np.random.default_rng(1).normal(size=(200, 4))).float()
    assigned = k_means(points, 7, np.random.default_rng(0))
    means = torch.stack([points[assigned == cluster].mean(0) for cluster in range(7)])
    assert torch.equal(torch.cdist(points, means).argmin(1), assigned)


def test_a_large_set_is_clustered_by_a_sample(monkeypatch):
    monkeypatch.setattr(module, "SAMPLE", 40)
    assigned = k_means(blobs(), 3, np.random.default_rng(0)).view(3, 30)
    assert all(len(group.unique()) == 1 for group in assigned)
    drawn = sample_of(torch.arange(90), np.random.default_rng(0)).tolist()
    assert len(set(drawn)) == 40
    assert drawn == sorted(drawn)


def test_more_clusters_than_different_points():
    points = torch.tensor([[0.0, 1.0], [1.0, 0.0]]).repeat(4, 1)
    assigned = k_means(points, 5, np.random.default_rng(0))
    assert len(assigned[::2].unique()) == len(assigned[1::2].unique()) == 1
    assert assigned[0] != assigned[1]


def test_unit_vectors_keep_zero():
    assert unit_vectors(torch.tensor([[3.0, 4.0], [0.0, 0.0]])).tolist() == [
        [pytest.approx(0.6), pytest.approx(0.8)],
        [0, 0],
    ]
