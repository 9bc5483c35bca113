import dataclasses

import numpy as np
import pytest
import torch
from support.pools import full_pool

from cdal.selectors.badge import BADGE


def gradients(pool):
    """The last layer's gradients in full, (N, C·D)."""
    p = pool.probabilities.double()
    error = p - torch.nn.functional.one_hot(p.argmax(1), p.shape[1])
    return (error[:, :, None] * pool.features.double()[:, None]).flatten(1).numpy()


def test_scores_are_distances_between_gradients():
    pool = full_pool(labelled=[1, 2])
    g = gradients(pool)
    first, *others = BADGE().select(pool, 15).picks
    unlabelled = [i for i in range(40) if i not in (1, 2)]
    assert first.index == max(unlabelled, key=lambda i: np.linalg.norm(g[i]))
    assert first.score == pytest.approx(np.linalg.norm(g[first.index]))
    earlier = [first.index]
    for pick in others:
        distances = {j: np.linalg.norm(g[pick.index] - g[j]) for j in earlier}
        assert pick.score == pytest.approx(min(distances.values()))
        assert pick.reason["nearest"] == min(distances, key=distances.__getitem__)
        earlier.append(pick.index)


def test_a_copy_of_a_pick_is_not_drawn_while_there_is_another():
    pool = full_pool(3, seed=2)
    pool = pool.take(torch.tensor([0, 0, 0, 0, 1, 1, 1, 1, 2]))
    for seed in range(20):
        picks = BADGE().select(pool, 3, seed).indices
        assert len({(0 if i < 4 else 1 if i < 8 else 2) for i in picks}) == 3


def test_draws_follow_the_squared_distance():
    # All share one class vector, so gradients are 1-D: at 0, 1 and 3 from the largest, 9.
    pool = full_pool(4, classes=2)
    p = torch.tensor([[0.75, 0.25]]).repeat(4, 1)
    features = torch.tensor([[9.0], [9.0], [8.0], [6.0]])
    pool = dataclasses.replace(pool, probabilities=p, features=features)
    seconds = [BADGE().select(pool, 2, seed).indices[1] for seed in range(600)]
    # Squared distances 0, 1 and 9: image 3 nine times as often as image 2.
    assert seconds.count(1) == 0
    assert 0.86 < seconds.count(3) / 600 < 0.94
