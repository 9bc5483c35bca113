"""CEREALS and RBAL on regions whose entropy and cost are given."""

import dataclasses

import pytest
import torch
from support.pools import vector_pool

from cdal.selectors import make_selector


def regions(entropies, costs, images):
    pool = vector_pool([[0.5, 0.5]] * len(entropies))
    uncertainties = torch.tensor([[entropy, 0.0, 0.0] for entropy in entropies])
    return dataclasses.replace(
        pool,
        uncertainties=uncertainties,
        costs=torch.tensor(costs),
        image_of=torch.tensor(images),
    )


def test_cereals_divides_by_the_cost():
    pool = regions([0.9, 0.6, 0.3], [8.0, 1.0, 0.0], [0, 1, 2])
    selection = make_selector("cereals").select(pool, 3)
    assert selection.indices == [1, 2, 0]
    assert [pick.score for pick in selection.picks] == pytest.approx([0.3, 0.3, 0.1])
    without = make_selector("cereals", {"weight": 0}).select(pool, 3)
    assert without.indices == [0, 1, 2]


def test_rbal_takes_one_region_of_each_image_first():
    pool = regions([0.9, 0.8, 0.7, 0.2, 0.1, 0.6], [0.0] * 6, [0, 0, 0, 1, 1, 2])
    selection = make_selector("rbal").select(pool, 5)
    assert selection.indices == [0, 5, 3, 1, 4]
    assert [pick.reason["place"] for pick in selection.picks] == [1, 1, 1, 2, 2]
