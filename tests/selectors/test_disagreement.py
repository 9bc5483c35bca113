"""How far opinions differ, on opinions whose measures are easy to see."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from support.pools import full_pool

from cdal.selectors import Pool, PoolError, make_selector
from cdal.selectors.disagreement import DISAGREEMENTS, disagreements_of

OPINIONS = [
    [[0.5, 0.5], [0.5, 0.5]],  # uncertain, but agreeing
    [[1.0, 0.0], [0.0, 1.0]],  # certain, but disagreeing
    [[0.9, 0.1], [0.9, 0.1]],  # agreeing, and rather certain
]


def test_each_measure_of_a_region() -> None:
    found = disagreements_of(torch.tensor(OPINIONS))
    assert DISAGREEMENTS == ("information", "entropy", "votes", "variance")
    assert found.tolist() == [
        pytest.approx([0, 1, 0, 0]),
        pytest.approx([1, 1, 1, 0.5]),
        pytest.approx([0, 0.468996, 0, 0], abs=1e-6),
    ]


def test_the_regions_of_an_image_may_have_any_shape() -> None:
    assert disagreements_of(torch.tensor([[OPINIONS]])).shape == (1, 1, 3, 4)


@pytest.mark.parametrize(
    ("name", "options", "column"),
    [
        ("bald", {}, 0),
        ("committee", {}, 0),
        ("mc-dropout", {}, 1),
        ("committee", {"disagreement": "vote"}, 2),
        ("suggestive-annotation", {}, 3),
    ],
)
def test_images_with_many_regions_are_ranked_by_the_mean(
    name: str, options: dict[str, str], column: int
) -> None:
    # In this column, images 7 and 9 come first; in the others they come last.
    measures = torch.rand(12, 4, generator=torch.Generator().manual_seed(0)) + 1
    measures[[7, 9]] = 0
    measures[[7, 9], column] = torch.tensor([8.0, 7.0])
    pool = dataclasses.replace(full_pool(12), samples=None, disagreements=measures)
    selection = make_selector(name, options).select(pool, 1)
    if name == "suggestive-annotation":  # of the two, the one that is like more images
        assert selection.indices[0] in (7, 9)
        assert selection.picks[0].reason["variance"] in (8, 7)
    else:
        assert selection.indices == [7]
        assert selection.picks[0].score == 8


def test_impossible_measures_are_refused() -> None:
    for wrong, message in (
        (torch.zeros(12, 3), "disagreements must have the shape"),
        (torch.full((12, 4), -1.0), "disagreements is negative in image 0"),
        (torch.full((12, 4), torch.nan), "disagreements has NaN or infinity in image 0"),
    ):
        with pytest.raises(PoolError, match=message):
            dataclasses.replace(full_pool(12), disagreements=wrong)


def test_arrays_are_added_to_a_pool() -> None:
    pool = dataclasses.replace(full_pool(12, labelled=[3]), samples=None)
    more = pool.with_arrays({"disagreements": torch.ones(12, 4)})
    assert isinstance(more, Pool)
    assert set(more.arrays()) == {*pool.arrays(), "disagreements"}
    assert torch.equal(more.labelled, pool.labelled)
