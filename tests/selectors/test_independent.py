"""Class mixtures of classes that do not exclude each other."""

from __future__ import annotations

import math

import pytest
import torch

from cdal.selectors import Pool, make_selector, means_of_independent, mixtures_of_independent
from cdal.selectors.diversity import contextual_diversity

P = torch.tensor([[0.9, 0.5, 0.2], [0.1, 0.5, 0.2], [0.9, 0.25, 0.2]])


def divergence(p: float, q: float) -> float:
    """The symmetric divergence of two distributions of yes and no, as in Eq. 2."""
    return 0.5 * (p - q) * (math.log(p / q) - math.log((1 - p) / (1 - q)))


def test_diversity_is_the_sum_over_the_classes() -> None:
    made = mixtures_of_independent(P)
    found = contextual_diversity(made, made)
    for a in range(3):
        for b in range(3):
            wanted = sum(
                divergence(*pair) for pair in zip(P[a].tolist(), P[b].tolist(), strict=True)
            )
            assert float(found[a, b]) == pytest.approx(wanted, abs=1e-5)


def test_only_some_classes_count() -> None:
    made = mixtures_of_independent(P, classes=[1])
    found = contextual_diversity(made, made)
    assert float(found[0, 1]) == pytest.approx(0, abs=1e-6)
    assert float(found[0, 2]) == pytest.approx(divergence(0.5, 0.25), abs=1e-5)


def test_certain_classes_give_no_infinite_distance() -> None:
    made = mixtures_of_independent(torch.tensor([[1.0, 0.0], [0.0, 0.0]]))
    assert contextual_diversity(made, made).isfinite().all()
    with pytest.raises(ValueError, match="two classes"):
        mixtures_of_independent(torch.tensor([[0.5]]))


def test_uncertainties_are_those_of_independent_classes() -> None:
    means = means_of_independent(torch.tensor([[0.5, 0.25], [1.0, 0.0]]))
    quarter = -0.25 * math.log2(0.25) - 0.75 * math.log2(0.75)
    assert means.uncertainties.tolist() == [
        pytest.approx([1 + quarter, 1, 0.5]),
        pytest.approx([0, 0, 0], abs=1e-6),
    ]
    assert means.probabilities.tolist()[0] == pytest.approx([2 / 3, 1 / 3])


@pytest.mark.parametrize(
    "name", ["cdal-cs", "entropy", "margin", "core-set", "typiclust", "random"]
)
def test_selectors_rank_such_a_pool(name: str) -> None:
    draws = torch.Generator().manual_seed(0)
    probabilities = torch.rand(12, 3, generator=draws)
    made, means = mixtures_of_independent(probabilities), means_of_independent(probabilities)
    pool = Pool(
        mixtures=made.mixtures,
        present=made.present,
        labelled=torch.arange(12) < 2,
        features=torch.randn(12, 4, generator=draws),
        probabilities=means.probabilities,
        uncertainties=means.uncertainties,
        region_counts=made.region_counts,
    )
    picks = make_selector(name).select(pool, 5, seed=0).picks
    assert len({pick.index for pick in picks}) == 5
