import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.equations import all_distances, k_center

from cdal.selectors import k_center as module
from cdal.selectors.core_set import EuclideanEmbedding
from cdal.selectors.diversity import DiversityEmbedding
from cdal.selectors.k_center import k_center_greedy


def line(*positions):
    return EuclideanEmbedding.of(torch.tensor(positions, dtype=torch.float32)[:, None])


def labelled(n, *rows):
    mask = torch.zeros(n, dtype=torch.bool)
    mask[list(rows)] = True
    return mask


def test_the_farthest_from_its_nearest_centre_each_time():
    # 0 is labelled: 10 is farthest; then 4 (4 from 0) before 8 (2 from 10) before 1 and 9.
    found = k_center_greedy(line(0, 1, 4, 8, 10, 9), labelled(6, 0), 3)
    assert found.picks == [4, 2, 3]
    assert found.nearest == [0, 0, 4]


def test_equal_distances_go_to_the_lowest_index():
    found = k_center_greedy(line(5, 7, 3, 7, 3), labelled(5, 0), 4)
    assert found.picks == [1, 2, 3, 4]
    assert found.nearest == [0, 0, 1, 2]
    assert found.tied_at_zero == 2


def test_a_tie_with_an_image_that_is_no_candidate_goes_to_the_lowest_index(monkeypatch):
    monkeypatch.setattr(module, "CANDIDATES", 2)
    # 15 and 10 are the candidates. Once 15 is picked, 10 is at 5 from it, as -5 is from 0.
    assert k_center_greedy(line(0, -5, 15, 10), labelled(4, 0), 3).picks == [2, 1, 3]


def test_the_first_pick_is_random_only_where_nothing_is_labelled():
    firsts = {k_center_greedy(line(*range(9)), labelled(9), 1, seed).picks[0] for seed in range(20)}
    assert len(firsts) > 3
    assert k_center_greedy(line(*range(9)), labelled(9), 1).nearest == [None]


def test_no_image_is_picked_twice_when_all_distances_are_zero():
    found = k_center_greedy(line(*[2] * 6), labelled(6, 3), 5)
    assert found.picks == [0, 1, 2, 4, 5]
    assert found.tied_at_zero == 5


def test_progress_rises_to_one():
    told = []
    k_center_greedy(line(*range(9)), labelled(9, 0), 8, progress=told.append)
    assert told == sorted(told)
    assert told[-1] == 1


@st.composite
def pools(draw):
    """Mixtures, present and labelled: structured, confident, tied or duplicated."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n = draw(st.integers(1, 40))
    classes = draw(st.sampled_from([2, 3, 5, 8]))
    rows = draw(st.sampled_from([1, classes]))
    concentration = draw(st.sampled_from([0.02, 0.3, 3.0]))
    p = rng.dirichlet(np.full(classes, concentration), size=(n, rows))
    if draw(st.booleans()):  # ties: few distinct mixtures
        p = p[rng.integers(min(3, n), size=n)]
    if draw(st.booleans()):  # one-hot: distances are multiples of one number
        p = np.eye(classes)[p.argmax(-1)]
    present = rng.random((n, rows)) < draw(st.sampled_from([0.3, 0.8, 1.0]))
    copies = rng.integers(n, size=draw(st.integers(0, n)))
    p[: len(copies)], present[: len(copies)] = p[copies], present[copies]
    mask = rng.random(n) < draw(st.sampled_from([0.0, 0.1, 0.5]))
    return (
        torch.from_numpy(p * present[..., None]).float(),
        torch.from_numpy(present),
        torch.from_numpy(mask),
    )


def assert_greedy(picks, distances, mask, budget):
    """Each pick is that of the float64 greedy, or one that it considers equal to 1e-5.

    After a pick that differs, the greedy goes on from the picks that were made.
    """
    gone = mask.numpy().copy()
    nearest = distances[gone].min(0) if gone.any() else np.full(len(distances), np.inf)
    assert len(picks) == budget
    for step, pick in enumerate(picks):
        assert not gone[pick]
        left = np.flatnonzero(~gone)
        best = left[np.argmax(nearest[left])]
        if pick != best and np.isfinite(nearest[best]):
            assert nearest[pick] == pytest.approx(nearest[best], rel=1e-5, abs=1e-5), step
        gone[pick] = True
        nearest = np.minimum(nearest, distances[pick])


@pytest.mark.slow
@pytest.mark.parametrize("candidates", [3, 256])
@settings(max_examples=500, deadline=None, derandomize=True)
@given(pool=pools(), missing=st.sampled_from(["skip", "uniform"]), share=st.floats(0, 1))
def test_it_is_the_float64_greedy(candidates, pool, missing, share):
    mixtures, present, mask = pool
    budget = round(share * int((~mask).sum()))
    with pytest.MonkeyPatch.context() as patch:
        # With few candidates, even a small pool needs many refreshes.
        patch.setattr(module, "CANDIDATES", candidates)
        embedding = DiversityEmbedding.of(mixtures, present, missing)
        found = k_center_greedy(embedding, mask, budget)
    distances = all_distances(mixtures.numpy(), present.numpy(), missing)
    assert_greedy(found.picks, distances, mask, budget)
    centres = np.flatnonzero(mask).tolist()
    for pick, near in zip(found.picks, found.nearest, strict=True):
        if near is not None:
            assert near in centres
            nearest = distances[pick][centres].min()
            assert distances[pick][near] == pytest.approx(nearest, rel=1e-5, abs=1e-5)
        centres.append(pick)


@pytest.mark.parametrize("candidates", [3, 256])
def test_a_longer_run_is_the_float64_greedy(candidates, monkeypatch):
    monkeypatch.setattr(module, "CANDIDATES", candidates)
    rng = np.random.default_rng(0)
    n, classes = 700, 6
    present = torch.from_numpy(rng.random((n, classes)) < 0.6)
    p = torch.from_numpy(rng.dirichlet(np.full(classes, 0.4), size=(n, classes))).float()
    mixtures = p * present[..., None]
    mask = torch.from_numpy(rng.random(n) < 0.02)
    distances = all_distances(mixtures.numpy(), present.numpy(), "uniform")
    embedding = DiversityEmbedding.of(mixtures, present, "uniform")
    picks = k_center_greedy(embedding, mask, 400).picks
    assert_greedy(picks, distances, mask, 400)
    # No two candidates are within 1e-5 of each other before that.
    assert picks[:300] == k_center(distances, mask.numpy(), 300)


def test_euclidean_distances_survive_a_large_offset():
    rng = np.random.default_rng(0)
    features = torch.from_numpy(1000 + rng.normal(size=(30, 4))).float()
    rows = torch.arange(30)
    found = EuclideanEmbedding.of(features).distances(rows, rows)
    wide = features.double().numpy()
    expected = ((wide[:, None] - wide[None]) ** 2).sum(-1)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
