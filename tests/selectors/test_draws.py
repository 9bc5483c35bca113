import itertools
import math

import pytest
import torch

from cdal.selectors.core_set import EuclideanEmbedding
from cdal.selectors.diversity import DiversityEmbedding
from cdal.selectors.draws import PULL, Distance, Draws, draw, most_probable
from cdal.selectors.k_center import k_center_greedy
from cdal.selectors.synthetic import confused_pool


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def without_distances(logits, picks):
    """The log-probabilities of draws that depend on the logits alone."""
    return Draws(picks, torch.zeros(*picks.shape, len(logits))).log_probabilities(logits)


def all_alike(images):
    """Images that are as far from each other as any."""
    features = torch.eye(images) * 5
    return Distance.of(EuclideanEmbedding.of(features), torch.zeros(images, dtype=torch.bool))


def on_a_line(*places, labelled=()):
    """Squared distances of images on a line, in units of their mean."""
    mask = torch.zeros(len(places), dtype=torch.bool)
    mask[list(labelled)] = True
    features = torch.tensor(places, dtype=torch.float32)[:, None]
    return Distance.of(EuclideanEmbedding.of(features), mask)


def test_log_probabilities_by_hand():
    # Weights 1, 2 and 5: first the third (5/8), then of the rest the first (1/3).
    logits = torch.tensor([1.0, 2.0, 5.0]).log()
    picks = torch.tensor([[2, 0], [0, 1]])
    expected = [[5 / 8, 1 / 3], [1 / 8, 2 / 7]]
    actual = without_distances(logits, picks).exp()
    assert actual.tolist() == [pytest.approx(each) for each in expected]


def test_the_probabilities_of_all_ordered_selections_sum_to_one():
    logits = torch.tensor([0.3, -2.0, 1.5, 0.0, 9.0])
    for budget in range(1, 6):
        every = torch.tensor(list(itertools.permutations(range(5), budget)))
        total = without_distances(logits, every).sum(1).exp().sum().item()
        assert total == pytest.approx(1)


def test_gradients_are_finite_even_where_all_are_picked():
    logits = torch.tensor([0.0, 300.0, -300.0], requires_grad=True)
    without_distances(logits, torch.tensor([[0, 2, 1], [1, 2, 0]])).sum().backward()
    assert logits.grad.isfinite().all()


def test_a_neighbour_of_a_draw_is_hardly_drawn_next():
    """The labelled image is in the corner; weights are 1, 4, 9 and 9, of two copies."""
    root = 1 / PULL
    features = torch.tensor([[0, 0, 0], [1, 0, 0], [0, 2**root, 0], *[[0, 0, 3**root]] * 2])
    labelled = torch.tensor([True, False, False, False, False])
    distance = Distance.of(EuclideanEmbedding.of(features), labelled)
    images = torch.tensor([1, 2, 3, 4])
    draws = draw(torch.zeros(4), images, distance, 2, 4000, generator())
    probability = draws.log_probabilities(torch.zeros(4)).exp()
    first = draws.picks[:, 0]
    for place, expected in enumerate((1 / 23, 4 / 23, 9 / 23, 9 / 23)):
        assert probability[first == place, 0].mean().item() == pytest.approx(expected, rel=1e-3)
        share = (first == place).double().mean().item()
        assert share == pytest.approx(expected, abs=4 * math.sqrt(expected / 4000))
    # After a copy, the other one is at distance 0; the others are as near to the corner as before.
    assert not ((first == 2) & (draws.picks[:, 1] == 3)).any()
    after = (first == 2) & (draws.picks[:, 1] == 0)
    assert probability[after, 1].mean().item() == pytest.approx(1 / 5, rel=1e-3)


def test_ordered_selections_are_drawn_as_often_as_they_are_probable():
    logits = torch.tensor([0.0, 1.0, -1.0])
    picks = draw(logits, torch.arange(3), all_alike(3), 2, 30_000, generator()).picks
    for order in itertools.permutations(range(3), 2):
        share = (picks == torch.tensor(order)).all(1).double().mean().item()
        expected = without_distances(logits, torch.tensor([order])).sum().exp().item()
        assert share == pytest.approx(expected, abs=4 * math.sqrt(expected / 30_000))


@pytest.mark.parametrize("logits", [torch.zeros(50), torch.linspace(-300, 300, 50)])
def test_no_image_is_drawn_twice(logits):
    picks = draw(logits, torch.arange(50), all_alike(50), 50, 20, generator()).picks
    assert (picks.sort(1).values == torch.arange(50)).all()
    best, _ = most_probable(logits, torch.arange(50), all_alike(50), 50)
    assert (best.sort().values == torch.arange(50)).all()


def test_with_equal_logits_the_most_probable_selection_is_that_of_k_center_greedy():
    pool = confused_pool(80, labelled=6)
    embedding = DiversityEmbedding.of(pool.mixtures, pool.present)
    images = pool.unlabelled
    distance = Distance.of(embedding, pool.labelled)
    told = []
    places, scores = most_probable(torch.zeros(len(images)), images, distance, 20, told.append)
    assert images[places].tolist() == k_center_greedy(embedding, pool.labelled, 20).picks
    assert scores.tolist() == sorted(scores.tolist(), reverse=True)
    assert told == [(turn + 1) / 20 for turn in range(20)]


def test_a_logit_outweighs_a_distance():
    distance = on_a_line(0, 1, 2, labelled=[0])
    images = torch.tensor([1, 2])
    for logit, first in ((0.0, 1), (PULL * math.log(3.9), 1), (PULL * math.log(4.1), 0)):
        places, scores = most_probable(torch.tensor([logit, 0.0]), images, distance, 1)
        assert places.tolist() == [first]
        # In units of the mean, the squared distances are 1 / 2.5 and 4 / 2.5.
        expected = (logit, 0.0)[first] + PULL * math.log((1, 4)[first] / 2.5)
        assert scores.tolist() == [pytest.approx(expected, rel=1e-4)]


def test_copies_of_a_labelled_image_are_drawn_last():
    distance = on_a_line(0, 0, 0, 5, labelled=[0])
    images = torch.tensor([1, 2, 3])
    places, _ = most_probable(torch.zeros(3), images, distance, 3)
    assert places.tolist() == [2, 0, 1]
