"""Contextual diversity by several models of the same images."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from support.pools import full_pool, vector_pool

from cdal.selectors import DiversityEmbedding, Pool, PoolError
from cdal.selectors.badge import BADGE
from cdal.selectors.cd_greedy import CDGreedy
from cdal.selectors.cdal_cs import CDALCS
from cdal.selectors.cdal_rl import CDALRL
from cdal.selectors.diversity import Missing
from cdal.selectors.summed import diversity_of

FIRST = [[0.5, 0.5], [0.6, 0.4], [0.5, 0.5]]
SECOND = [[0.5, 0.3, 0.2], [0.5, 0.3, 0.2], [0.1, 0.1, 0.8]]


def both(labelled: list[int]) -> Pool:
    return replace(vector_pool(FIRST, labelled), beside=(vector_pool(SECOND, labelled),))


def test_what_either_model_tells_apart_is_far() -> None:
    selection = CDALCS().select(both([0]), 2)
    assert selection.indices == [2, 1]  # the second model tells 2 from 0, and the first one 1
    first, second = selection.picks
    assert set(first.reason["classes"]) == {"2", "3", "4"}  # counted on from the first model's two
    assert set(second.reason["classes"]) == {"0", "1"}
    alone = CDALCS().select(vector_pool(FIRST, [0]), 2)
    assert alone.indices == [1, 2]


@pytest.mark.parametrize("missing", ["uniform", "skip"])
def test_distances_are_the_sum_of_each_models(missing: Missing) -> None:
    pools = [full_pool(classes=classes, seed=classes) for classes in (3, 5)]
    parts = [DiversityEmbedding.of(pool.mixtures, pool.present, missing) for pool in pools]
    summed = diversity_of(replace(pools[0], beside=(pools[1],)), missing)
    rows, cols = torch.arange(40), torch.arange(7)
    wanted = sum((part.distances(rows, cols) for part in parts), torch.zeros(40, 7))
    assert torch.allclose(summed.distances(rows, cols), wanted, rtol=1e-4, atol=1e-4)
    assert torch.allclose(summed.nearest(rows, cols)[0], wanted.min(1).values, rtol=1e-4, atol=1e-4)
    assert summed.by_class(rows[:1], cols[1:2]).shape == (1, 8)
    assert summed.aggregate(cols) == pytest.approx(sum(p.aggregate(cols) for p in parts), rel=1e-4)


def test_greedy_maximises_the_sum() -> None:
    pools = [full_pool(classes=classes, labelled=[0, 5], seed=classes) for classes in (3, 5)]
    rows = torch.arange(40)
    distances = sum(
        (diversity_of(pool, "uniform").distances(rows, rows).double() for pool in pools),
        torch.zeros(40, 40),
    )
    selection = CDGreedy().select(replace(pools[0], beside=(pools[1],)), 6)
    against = [0, 5]
    for pick in selection.picks:
        gains = distances[:, against].sum(1)
        taken = torch.tensor([0, 5, *against])
        assert pick.index == gains.index_fill(0, taken, -1).argmax()
        assert pick.score == pytest.approx(float(gains[pick.index]), rel=1e-4)
        against = [pick.index] if against == [0, 5] else [*against, pick.index]
    assert {int(one) for pick in selection.picks for one in pick.reason["classes"]} - {0, 1, 2}  # type: ignore[attr-defined]


@pytest.mark.parametrize("rewards", ["spread", "coverage+cd+vr+sr"])
def test_a_policy_goes_by_all_models(rewards: str) -> None:
    parts = [
        replace(
            pool,
            features=torch.tensor([[0.0], [1.0], [3.0]]),
            region_counts=torch.ones(pool.present.shape[0], pool.mixtures.shape[2]),
        )
        for pool in (both([0]), vector_pool(SECOND, [0]))
    ]
    pool = replace(parts[0], beside=(parts[1],))
    selection = CDALRL(cells=4, epochs=2, rewards=rewards).select(pool, 2)
    assert selection.indices == [2, 1]
    first, second = selection.picks
    assert set(first.reason["classes"]) == {"2", "3", "4"}  # type: ignore[call-overload]
    assert set(second.reason["classes"]) == {"0", "1"}  # type: ignore[call-overload]


def test_what_looks_into_one_model_is_refused() -> None:
    with pytest.raises(PoolError, match="classes"):
        CDALRL(classes=(0,)).select(both([0]), 1)
    with pytest.raises(PoolError, match="badge"):
        BADGE().select(both([0]), 1)


def test_rows_and_devices_of_the_pools_beside_it_go_along() -> None:
    some = both([0]).take(torch.tensor([2, 0])).to("cpu")
    assert torch.equal(some.beside[0].mixtures[:, 0], torch.tensor([SECOND[2], SECOND[0]]))


def test_a_pool_of_other_images_is_refused() -> None:
    with pytest.raises(PoolError, match="3 images"):
        replace(vector_pool(FIRST[:2]), beside=(vector_pool(SECOND),))
