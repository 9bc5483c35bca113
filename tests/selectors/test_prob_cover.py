import dataclasses

import numpy as np
import pytest
import torch
from support.pools import full_pool, vector_pool

from cdal.selectors import k_means as k_means_module
from cdal.selectors import prob_cover as module
from cdal.selectors.k_means import unit_vectors
from cdal.selectors.prob_cover import ProbCover, pure_radius


def at_angles(degrees, labelled=()):
    angles = torch.deg2rad(torch.tensor(degrees, dtype=torch.float32))
    features = torch.stack([angles.cos(), angles.sin()], 1)
    return dataclasses.replace(
        vector_pool([[0.5, 0.5]] * len(degrees), labelled), features=features
    )


TEN_DEGREES = 0.1755  # a little more than the chord of ten degrees


def picked(selection):
    return [(pick.index, pick.score, pick.reason["cover"]) for pick in selection.picks]


def test_the_ball_that_covers_most_first_and_then_a_second_cover():
    pool = at_angles([0, 10, 20, 90, 100, 200])
    assert picked(ProbCover(delta=TEN_DEGREES).select(pool, 6)) == [
        (1, 3, 1), (3, 2, 1), (5, 1, 1), (0, 2, 2), (4, 2, 2), (2, 1, 2),
    ]  # fmt: skip


def test_what_labelled_images_cover_is_covered():
    pool = at_angles([0, 10, 20, 90, 100, 200], labelled=[1])
    assert picked(ProbCover(delta=TEN_DEGREES).select(pool, 2)) == [(3, 2, 1), (5, 1, 1)]
    # All is covered by labels: at once a second cover.
    pool = at_angles([0, 10, 20], labelled=[1])
    assert picked(ProbCover(delta=TEN_DEGREES).select(pool, 2)) == [(0, 2, 2), (2, 1, 2)]


def plain_greedy(points, labelled, delta, count):
    """Algorithm 1 of the paper on the whole graph."""
    within = torch.cdist(points.double(), points.double()).numpy() <= delta
    covered = within[labelled].any(0)
    gone = labelled.copy()
    picks = []
    for _ in range(count):
        gains = np.where(gone, -1, (within & ~covered).sum(1))
        picks.append((int(gains.argmax()), gains.max()))
        gone[picks[-1][0]] = True
        covered |= within[picks[-1][0]]
    return picks


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("rows", [3, 255])
def test_it_is_the_paper_s_greedy_cover(monkeypatch, seed, rows):
    monkeypatch.setattr(module, "_UNPACKED", rows)
    pool = full_pool(80, labelled=[5, 60], seed=seed)
    picks = [pick for pick in picked(ProbCover(delta=0.6).select(pool, 80)) if pick[2] == 1]
    wanted = plain_greedy(unit_vectors(pool.features), pool.labelled.numpy(), 0.6, len(picks))
    assert len(picks) > 10
    assert [pick[:2] for pick in picks] == wanted


def test_a_permuted_pool_gives_the_permuted_picks_where_the_radius_is_given():
    # All but ties, which go to the lowest index: so as many images as different degrees.
    pool = at_angles([0, 10, 20, 90, 100, 200])
    order = torch.tensor([5, 2, 4, 0, 3, 1])
    first, *_ = ProbCover(delta=TEN_DEGREES).select(pool.take(order), 1).indices
    assert order[first] == 1


def test_the_radius_is_the_largest_with_enough_pure_balls():
    points = unit_vectors(torch.randn(200, 3, generator=torch.Generator().manual_seed(0)))
    labels = (points[:, 0] > 0).long()
    distances = torch.cdist(points.double(), points.double())
    other = distances.masked_fill(labels[:, None] == labels, torch.inf).min(1).values
    for purity in (0.5, 0.95, 1.0):
        radius = pure_radius(points, labels, torch.arange(200), purity)
        assert (other > radius).double().mean() >= purity
        assert (other > 1.001 * radius).double().mean() < purity


def test_a_single_pseudo_label_has_the_largest_radius():
    points = torch.eye(3)
    assert pure_radius(points, torch.zeros(3, dtype=torch.int64), torch.arange(3), 0.95) == 2


def test_the_radius_is_reported():
    assert ProbCover(delta=0.5).select(full_pool(), 2).report == {"delta": 0.5}
    found = ProbCover().select(full_pool(), 2).report["delta"]
    assert 0 < found < ProbCover(purity=0.5).select(full_pool(), 2).report["delta"] < 2


def test_of_a_large_pool_a_sample_is_covered(monkeypatch):
    monkeypatch.setattr(k_means_module, "SAMPLE", 30)
    pool = full_pool(300, labelled=[7])
    picks = picked(ProbCover().select(pool, 299))
    assert sorted(pick[0] for pick in picks) == [row for row in range(300) if row != 7]
    assert all(0 <= pick[1] <= 30 for pick in picks)
