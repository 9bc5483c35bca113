from __future__ import annotations

import dataclasses

import pytest
import torch
from support.pools import vector_pool

from cdal.selectors import Pool
from cdal.selectors.drop_query import DropQuery

SURE, OTHER = (0.9, 0.1), (0.2, 0.8)


def pool_of(disagreeing: list[int], places: list[float], labelled: tuple[int, ...] = ()) -> Pool:
    """Images at these places, all taken for the first class; so many of four passes disagree."""
    passes = [[OTHER] * count + [SURE] * (4 - count) for count in disagreeing]
    return dataclasses.replace(
        vector_pool([SURE] * len(places), labelled),
        features=torch.tensor(places)[:, None],
        samples=torch.tensor(passes),
    )


@pytest.mark.parametrize("seed", range(5))
def test_the_middle_of_each_cluster_of_candidates_the_larger_first(seed: int) -> None:
    # Two groups of candidates, around 1 and 10; no more than half disagree on those around 5.
    places = [0.8, 1.0, 1.2, 5.0, 5.1, 9.0, 9.8, 10.0, 10.2, 11.0]
    pool = pool_of([3, 3, 3, 2, 2, 3, 4, 3, 3, 3], places)
    first, second = DropQuery().select(pool, 2, seed).picks
    assert (first.index, first.reason) == (7, {"disagree": 0.75, "alike": 5})
    assert (second.index, second.reason) == (1, {"disagree": 0.75, "alike": 3})


def test_labelled_images_are_no_candidates() -> None:
    pool = pool_of([4, 4, 0, 0], [0.0, 1.0, 2.0, 3.0], labelled=(0,))
    assert DropQuery().select(pool, 1).indices == [1]


def test_where_candidates_are_few_those_follow_on_which_most_disagree() -> None:
    pool = pool_of([0, 1, 3, 2], [0.0, 1.0, 2.0, 3.0])
    assert set(DropQuery().select(pool, 2).indices) == {2, 3}
    assert set(DropQuery().select(pool, 3).indices) == {1, 2, 3}


def test_a_long_ranking_goes_on_with_the_second_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cdal.selectors.drop_query.MAX_CLUSTERS", 2)
    pool = pool_of([4] * 6, [0.0, 0.1, 0.3, 9.0, 9.1, 9.3])
    first = DropQuery().select(pool, 4).indices
    assert set(first[:2]) == {1, 4}
    assert set(first[2:]) == {0, 3}
