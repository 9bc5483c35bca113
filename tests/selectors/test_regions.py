"""Mixtures and means of every kind of region, with results that can be worked out by hand."""

import math

import pytest
import torch

from cdal.selectors import (
    Pool,
    make_selector,
    means_of_regions,
    mixtures_of_boxes,
    mixtures_of_logits,
    mixtures_of_regions,
    mixtures_of_vectors,
)

SURE, EVEN, LEANING = [1.0, 0.0], [0.5, 0.5], [0.75, 0.25]
BITS = 2 - 0.75 * math.log2(3)  # the entropy of LEANING


def maps(*images: list[list[float]]) -> torch.Tensor:
    """Logits (N, C, 1, pixels) of the softmax probabilities of each pixel."""
    p = torch.tensor(images).transpose(1, 2)[:, :, None]
    return p.clamp(min=1e-30).log() + 3.0  # a constant leaves the softmax as it is


class TestMeans:
    def test_an_image_is_one_region(self) -> None:
        means = means_of_regions(torch.tensor([SURE, EVEN, LEANING]))
        assert means.probabilities.tolist() == [SURE, EVEN, LEANING]
        assert means.uncertainties.tolist() == [
            [0, 0, 0],
            [1, 1, 0.5],
            pytest.approx([BITS, 0.5, 0.25]),
        ]

    @pytest.mark.parametrize("kind", ["pixels", "boxes"])
    def test_all_regions_of_an_image_count_alike(self, kind: str) -> None:
        images = [[SURE, SURE, EVEN, LEANING], [EVEN] * 4]
        regions = maps(*images) if kind == "pixels" else [torch.tensor(i) for i in images]
        means = means_of_regions(regions)
        assert means.probabilities[0].tolist() == pytest.approx([13 / 16, 3 / 16])
        expected = [(1 + BITS) / 4, 1.5 / 4, 0.75 / 4]
        assert means.uncertainties[0].tolist() == pytest.approx(expected, rel=1e-5)
        assert means.uncertainties[1].tolist() == pytest.approx([1, 1, 0.5])

    def test_boxes_need_not_sum_to_one(self) -> None:
        means = means_of_regions([torch.tensor([[0.15, 0.05]])])
        assert means.probabilities[0].tolist() == pytest.approx(LEANING)

    def test_an_image_without_boxes_tells_nothing(self) -> None:
        means = means_of_regions([torch.zeros(0, 2), torch.tensor([SURE])])
        assert means.probabilities.tolist() == [EVEN, SURE]
        assert means.uncertainties.tolist() == [[0, 0, 0], [0, 0, 0]]

    def test_large_maps_are_no_different(self) -> None:
        logits = torch.randn((3, 4, 700, 700), generator=torch.Generator().manual_seed(0))
        together, alone = means_of_regions(logits), means_of_regions(logits[1:2])
        assert torch.allclose(together.uncertainties[1], alone.uncertainties[0])
        assert torch.allclose(together.probabilities[1], alone.probabilities[0])


def test_each_kind_of_region_has_its_mixtures() -> None:
    vectors = torch.tensor([LEANING, EVEN])
    boxes = [torch.tensor([LEANING, SURE]), torch.tensor([EVEN])]
    logits = maps([LEANING, SURE], [EVEN, EVEN])
    for found, expected in (
        (mixtures_of_regions(vectors), mixtures_of_vectors(vectors)),
        (mixtures_of_regions(boxes), mixtures_of_boxes(boxes)),
        (mixtures_of_regions(logits), mixtures_of_logits(logits)),
        (mixtures_of_regions(vectors, "image"), mixtures_of_vectors(vectors, region="image")),
        (mixtures_of_regions(vectors, "class"), mixtures_of_vectors(vectors, region="class")),
        (mixtures_of_regions(boxes, "class"), mixtures_of_boxes(boxes)),
        (mixtures_of_regions(logits, "class"), mixtures_of_logits(logits)),
    ):
        assert torch.equal(found.mixtures, expected.mixtures)
        assert torch.equal(found.present, expected.present)
        assert torch.equal(found.region_counts, expected.region_counts)


@pytest.mark.parametrize(
    ("name", "order"),
    [("entropy", [2, 0, 1]), ("margin", [1, 2, 0]), ("least-confidence", [0, 1, 2])],
)
def test_uncertainty_sampling_goes_by_the_regions_where_the_pool_has_them(
    name: str, order: list[int]
) -> None:
    """The mean of very different regions looks uncertain, though the model is certain of each."""
    pool = Pool(
        mixtures=torch.full((3, 1, 2), 0.5),
        present=torch.ones(3, 1, dtype=torch.bool),
        labelled=torch.zeros(3, dtype=torch.bool),
        probabilities=torch.tensor([EVEN, EVEN, SURE]),
        uncertainties=torch.tensor([[0.2, 0.0, 0.3], [0.1, 0.9, 0.2], [0.9, 0.5, 0.1]]),
    )
    selection = make_selector(name).select(pool, 3)
    assert selection.indices == order
