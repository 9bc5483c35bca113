"""Entropy, margin, least confidence and BALD, on vectors whose scores are easy to see."""

import dataclasses
import math

import pytest
import torch
from support.pools import vector_pool

from cdal.selectors import Pool, make_selector

VECTORS = [
    [0.5, 0.5, 0.0],  # entropy 1 bit, margin 0, confidence 0.5
    [0.4, 0.3, 0.3],  # entropy 1.571 bits, margin 0.1, confidence 0.4
    [1.0, 0.0, 0.0],  # certain
    [0.6, 0.2, 0.2],  # entropy 1.371 bits, margin 0.4, confidence 0.6
]


@pytest.mark.parametrize(
    ("name", "order", "best"),
    [
        ("entropy", [1, 3, 0, 2], -0.4 * math.log2(0.4) - 0.6 * math.log2(0.3)),
        ("margin", [0, 1, 3, 2], 1.0),
        ("least-confidence", [1, 0, 3, 2], 0.6),
    ],
)
def test_the_order_and_the_score(name, order, best):
    selection = make_selector(name).select(vector_pool(VECTORS), 4)
    assert selection.indices == order
    assert selection.picks[0].score == pytest.approx(best, rel=1e-6)
    assert selection.picks[-1].score == 0


def test_the_reason_is_the_two_likeliest_classes():
    pick = make_selector("entropy").select(vector_pool(VECTORS), 4).picks[1]
    assert list(pick.reason["classes"]) == ["0", "1"]
    assert list(pick.reason["classes"].values()) == [pytest.approx(0.6), pytest.approx(0.2)]


@pytest.mark.parametrize("name", ["entropy", "margin", "least-confidence"])
def test_ties_go_to_the_lowest_index_whatever_the_order_of_the_classes(name):
    pool = vector_pool([[0.9, 0.05, 0.05], [0.1, 0.3, 0.6], [0.6, 0.1, 0.3], [0.3, 0.6, 0.1]])
    assert make_selector(name).select(pool, 4).indices == [1, 2, 3, 0]


@pytest.mark.parametrize("name", ["entropy", "margin", "least-confidence"])
def test_a_single_class_leaves_nothing_uncertain(name):
    selection = make_selector(name).select(vector_pool([[1.0], [1.0]]), 2)
    assert [(pick.index, pick.score) for pick in selection.picks] == [(0, 0), (1, 0)]


def test_bald_asks_where_the_passes_disagree_not_where_they_are_unsure():
    samples = torch.tensor(
        [
            [[0.5, 0.5], [0.5, 0.5]],  # uncertain, but agreeing: 0
            [[1.0, 0.0], [0.0, 1.0]],  # certain, but disagreeing: 1 bit
            [[0.9, 0.1], [0.9, 0.1]],  # 0
        ]
    )
    pool = Pool(
        samples.mean(1, keepdim=True),
        torch.ones(3, 1, dtype=torch.bool),
        torch.zeros(3, dtype=torch.bool),
        samples=samples,
    )
    selection = make_selector("bald").select(pool, 3)
    assert selection.indices == [1, 0, 2]
    assert [pick.score for pick in selection.picks] == [pytest.approx(1), 0, 0]


def test_votes_differ_where_probabilities_hardly_do():
    samples = torch.tensor(
        [
            [[0.51, 0.49], [0.49, 0.51]],  # two votes, hardly any divergence
            [[0.9, 0.1], [0.6, 0.4]],  # one vote, some divergence
        ]
    )
    pool = dataclasses.replace(vector_pool([[0.5, 0.5]] * 2), samples=samples)
    by_vote = make_selector("committee", {"disagreement": "vote"}).select(pool, 2)
    assert by_vote.indices == [0, 1]
    assert [pick.score for pick in by_vote.picks] == [1, 0]
    assert make_selector("committee").select(pool, 2).indices == [1, 0]


def test_the_entropy_of_the_mean_pass_is_where_passes_are_unsure_too():
    samples = torch.tensor([[[0.5, 0.5], [0.5, 0.5]], [[1.0, 0.0], [0.8, 0.2]]])
    pool = dataclasses.replace(vector_pool([[0.5, 0.5]] * 2), samples=samples)
    selection = make_selector("mc-dropout").select(pool, 2)
    assert selection.indices == [0, 1]
    assert selection.picks[0].score == pytest.approx(1)
    assert selection.picks[1].score == pytest.approx(-0.9 * math.log2(0.9) - 0.1 * math.log2(0.1))
