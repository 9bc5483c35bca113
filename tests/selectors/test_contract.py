"""The contract of every selector: one class of tests, inherited for each registered name."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from support.pools import full_pool

from cdal.selectors import (
    SELECTORS,
    BudgetError,
    Pool,
    PoolError,
    Selection,
    make_selector,
)

QUICK = {"cdal-rl": {"epochs": 2, "cells": 8, "episodes": 2}}
NEEDS = {
    "entropy": ["probabilities"],
    "margin": ["probabilities"],
    "least-confidence": ["probabilities"],
    "core-set": ["features"],
    "typiclust": ["features"],
    "prob-cover": ["features"],
    "bald": ["samples"],
    "committee": ["samples"],
    "mc-dropout": ["samples"],
    "suggestive-annotation": ["features", "samples"],
    "learning-loss": ["predicted_losses", "probabilities"],
    "cereals": ["uncertainties", "costs", "probabilities"],
    "rbal": ["uncertainties", "image_of"],
    "vaal": ["likely_labelled", "probabilities"],
    "dropquery": ["features", "probabilities", "samples"],
    "badge": ["probabilities", "features"],
}


class Contract:
    name: str
    # A permuted pool gives the permuted picks: not where picks are drawn, or an order is learnt.
    deterministic = True

    def select(self, pool: Pool, budget: int, seed: int = 0) -> Selection:
        return make_selector(self.name, QUICK.get(self.name, {})).select(pool, budget, seed)

    @pytest.mark.parametrize("labelled", [(), (3, 17)])
    def test_the_same_seed_gives_the_same_selection(self, labelled):
        pool = full_pool(labelled=labelled)
        assert self.select(pool, 9, seed=5) == self.select(pool, 9, seed=5)

    @pytest.mark.parametrize("labelled", [(), (0,), tuple(range(0, 40, 3))])
    @pytest.mark.parametrize("budget", [1, 11])
    def test_picks_are_distinct_unlabelled_and_as_many_as_asked(self, budget, labelled):
        picks = self.select(full_pool(labelled=labelled), budget).indices
        assert len(picks) == len(set(picks)) == budget
        assert not set(picks) & set(labelled)
        assert all(0 <= pick < 40 for pick in picks)

    def test_a_budget_of_nothing_picks_nothing(self):
        assert self.select(full_pool(), 0).picks == ()
        assert self.select(full_pool(labelled=[1]), 0).picks == ()

    @pytest.mark.parametrize("budget", [12, 13, 1000])
    def test_a_budget_of_all_or_more_picks_all_that_are_unlabelled(self, budget):
        assert sorted(self.select(full_pool(12), budget).indices) == list(range(12))
        pool = full_pool(12, labelled=[4, 5])
        assert sorted(self.select(pool, budget).indices) == [0, 1, 2, 3, 6, 7, 8, 9, 10, 11]

    def test_a_negative_budget_is_refused(self):
        with pytest.raises(BudgetError, match="the budget must be at least 0, not -1"):
            self.select(full_pool(), -1)

    def test_an_empty_pool_gives_no_picks(self):
        assert self.select(full_pool(0), 3).picks == ()

    def test_a_labelled_pool_gives_no_picks(self):
        assert self.select(full_pool(6, labelled=range(6)), 3).picks == ()

    def test_one_image_is_picked(self):
        assert self.select(full_pool(1), 1).indices == [0]

    def test_images_that_are_all_alike_are_picked_once_each(self):
        pool = full_pool(1).take(torch.zeros(8, dtype=torch.int64))
        assert sorted(self.select(pool, 8).indices) == list(range(8))

    def test_images_without_any_class_are_picked_once_each(self):
        pool = full_pool(8)
        nothing = torch.zeros_like(pool.present)
        empty = torch.zeros_like(pool.mixtures)
        pool = dataclasses.replace(pool, present=nothing, mixtures=empty)
        assert sorted(self.select(pool, 8).indices) == list(range(8))

    @pytest.mark.parametrize(
        "array",
        [
            "mixtures",
            "features",
            "probabilities",
            "samples",
            "region_counts",
            "predicted_losses",
            "likely_labelled",
            "costs",
        ],
    )
    def test_nan_is_refused_by_name(self, array):
        pool = full_pool()
        values = getattr(pool, array).float()
        values[7] = torch.nan
        with pytest.raises(PoolError, match=f"^{array} has NaN or infinity in image 7$"):
            self.select(dataclasses.replace(pool, **{array: values}), 3)

    def test_what_it_needs_is_asked_for_by_name(self):
        optional = [
            "features",
            "probabilities",
            "samples",
            "region_counts",
            "predicted_losses",
            "likely_labelled",
            "costs",
            "image_of",
            "uncertainties",
        ]
        bare = dataclasses.replace(full_pool(), **dict.fromkeys(optional))
        for needed in NEEDS.get(self.name, []):
            without = dataclasses.replace(full_pool(), **{needed: None})
            with pytest.raises(PoolError, match=f"^{needed} is missing: .* {self.name} needs it"):
                self.select(without, 3)
        enough = {need: getattr(full_pool(), need) for need in NEEDS.get(self.name, [])}
        assert len(self.select(dataclasses.replace(bare, **enough), 3).picks) == 3

    def test_the_pool_is_left_as_it_was(self):
        pool = full_pool(labelled=[2])
        before = {name: array.clone() for name, array in pool.arrays().items()}
        self.select(pool, 9)
        for name, array in pool.arrays().items():
            assert torch.equal(array, before[name]), name

    def test_the_selection_is_json(self):
        selection = self.select(full_pool(labelled=[2]), 9)
        assert selection.selector == self.name
        text = json.dumps(dataclasses.asdict(selection), allow_nan=False)
        assert [pick["index"] for pick in json.loads(text)["picks"]] == selection.indices

    def test_progress_rises_to_one(self):
        told: list[float] = []
        selector = make_selector(self.name, QUICK.get(self.name, {}))
        selector.select(full_pool(labelled=[2]), 9, 0, told.append)
        assert told == sorted(told)
        assert told[0] >= 0
        assert told[-1] == 1

    def test_a_permuted_pool_gives_the_permuted_picks(self):
        if not self.deterministic:
            pytest.skip("its picks are drawn, or its order is learnt")
        pool = full_pool(labelled=[3, 17])
        order = np.random.default_rng(1).permutation(len(pool))
        picks = self.select(pool.take(torch.from_numpy(order)), 15).indices
        assert [int(order[pick]) for pick in picks] == self.select(pool, 15).indices

    @pytest.mark.gpu
    def test_cpu_and_gpu_agree(self):
        if self.name == "cdal-rl":
            pytest.skip("its training is not the same to the last bit on the two")
        pool = full_pool(labelled=[3, 17])
        here, there = self.select(pool, 15), self.select(pool.to("cuda"), 15)
        assert here.indices == there.indices
        for mine, theirs in zip(here.picks, there.picks, strict=True):
            assert mine.score == pytest.approx(theirs.score, rel=1e-5, abs=2e-6)


def _of(name: str) -> type[Contract]:
    title = "Test" + "".join(part.capitalize() for part in name.split("-"))
    drawn = name in ("random", "badge", "cdal-rl", "typiclust", "prob-cover", "dropquery")
    return type(title, (Contract,), {"name": name, "deterministic": not drawn})


for _name in SELECTORS:
    _class = _of(_name)
    globals()[_class.__name__] = _class
del _class
