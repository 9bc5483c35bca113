"""Suggestive Annotation on images whose uncertainty and directions are easy to see."""

import dataclasses
import math

import pytest
import torch
from support.pools import vector_pool

from cdal.selectors.suggestive_annotation import SuggestiveAnnotation


def pool_of(spreads, angles):
    """Images on which two members differ by a spread, with features at an angle in degrees."""
    pool = vector_pool([[0.5, 0.5]] * len(spreads))
    samples = [[[0.5 + s, 0.5 - s], [0.5 - s, 0.5 + s]] for s in spreads]
    turned = [[math.cos(math.radians(a)), math.sin(math.radians(a))] for a in angles]
    return dataclasses.replace(pool, samples=torch.tensor(samples), features=torch.tensor(turned))


def test_of_the_most_uncertain_the_one_that_is_like_most_is_picked():
    # 0 and 1 are the candidates; most of the pool points to 90 degrees.
    pool = pool_of([0.5, 0.4, 0.1, 0.0, 0.0], [0, 80, 90, 90, 90])
    (pick,) = SuggestiveAnnotation().select(pool, 1).picks
    assert pick.index == 1
    assert pick.reason == {"variance": pytest.approx(2 * 0.4**2)}
    similar = [math.cos(math.radians(a)) for a in (80, 0, 10, 10, 10)]
    assert pick.score == pytest.approx(1 + sum(similar) / 5)


def test_the_second_pick_covers_what_the_first_does_not():
    pool = pool_of([0.5, 0.5, 0.5, 0.5], [90, 85, 88, 0])
    assert SuggestiveAnnotation().select(pool, 2).indices == [1, 3]


def test_uncertain_images_come_before_representative_ones():
    pool = pool_of([0.5, 0.4, 0.0, 0.0, 0.0], [0, 10, 90, 90, 90])
    assert set(SuggestiveAnnotation().select(pool, 1).indices) <= {0, 1}
