"""Robust core-set on two groups of images and one far from all others."""

import dataclasses

import pytest
import torch
from support.pools import vector_pool

from cdal.selectors import make_selector

LINE = [0.0, 1.0, 2.0, 20.0, 21.0, 22.0, 1000.0]


def line(labelled=()):
    pool = vector_pool([[0.5, 0.5]] * len(LINE), labelled)
    return dataclasses.replace(pool, features=torch.tensor(LINE)[:, None])


def test_an_outlier_is_left_out_where_some_may_be():
    assert 6 in make_selector("core-set").select(line([0]), 1).indices
    robust = make_selector("core-set", {"outliers": "0.2"}).select(line([0]), 1)
    (pick,) = robust.picks
    assert pick.index in (3, 4, 5)
    assert pick.reason == {"covers": 3}
    assert robust.report["outliers"] == 1


def test_without_any_spared_image_the_outlier_has_its_ball():
    robust = make_selector("core-set", {"outliers": "0.01"}).select(line([0]), 2)
    assert 6 in robust.indices


def test_picks_that_the_cover_does_not_need_are_greedy():
    robust = make_selector("core-set", {"outliers": "0.2"}).select(line([0]), 4)
    assert len(set(robust.indices)) == 4
    needed = robust.report["cover"]
    assert all("nearest" in pick.reason for pick in robust.picks[needed:])


@pytest.mark.parametrize("budget", [1, 3, 7])
@pytest.mark.parametrize("labelled", [(), (2, 5)])
def test_as_many_distinct_unlabelled_images_as_asked(budget, labelled):
    picks = make_selector("core-set", {"outliers": 0.1}).select(line(labelled), budget).indices
    assert len(set(picks)) == len(picks) == min(budget, 7 - len(labelled))
    assert not set(picks) & set(labelled)


@pytest.mark.parametrize("outliers", [-0.1, 1])
def test_an_impossible_share_is_refused(outliers):
    with pytest.raises(ValueError, match="outliers must be at least 0 and below 1"):
        make_selector("core-set", {"outliers": outliers})
