import math

import numpy as np
import pytest
import torch
from support.equations import eq1

from cdal.selectors import (
    ClassMixtures,
    means_of_regions,
    mixtures_of_boxes,
    mixtures_of_logits,
    mixtures_of_probabilities,
    mixtures_of_vectors,
)
from cdal.selectors import mixtures as mixtures_module
from cdal.selectors.mixtures import EPSILON

H_QUARTER = -0.75 * math.log2(0.75) - 0.25 * math.log2(0.25)


def maps(kind, classes, n=2, height=5, width=7, seed=0):
    """Probability maps, (N, C, H, W) float64."""
    rng = np.random.default_rng(seed)
    shape = (n, height, width)
    p = {
        "random": lambda: rng.dirichlet(np.full(classes, 0.3), size=shape),
        "one class": lambda: (
            0.3 * rng.dirichlet(np.ones(classes), shape) + 0.7 * np.eye(classes)[0]
        ),
        "one-hot": lambda: np.eye(classes)[rng.integers(classes, size=shape)],
        "uniform": lambda: np.full((*shape, classes), 1 / classes),
        "near-identical": lambda: (
            rng.dirichlet(np.ones(classes)) + 1e-6 * rng.random((*shape, classes))
        ),
    }[kind]()
    return torch.from_numpy(p / p.sum(-1, keepdims=True)).permute(0, 3, 1, 2).contiguous()


def assert_is_eq1(found, regions_of_images, classes, weights):
    for i, regions in enumerate(regions_of_images):
        expected = eq1(regions, classes, weights)
        assert found.present[i].tolist() == [c in expected for c in range(classes)]
        for c in range(classes):
            want = expected.get(c, [0.0] * classes)
            np.testing.assert_allclose(found.mixtures[i, c], want, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("weights", ["entropy", "uniform"])
@pytest.mark.parametrize("classes", [2, 19, 150])
@pytest.mark.parametrize("kind", ["random", "one class", "one-hot", "uniform", "near-identical"])
def test_eq1_is_the_loop(kind, classes, weights):
    p = maps(kind, classes).float()
    regions = p.double().flatten(2).transpose(1, 2).tolist()
    assert_is_eq1(mixtures_of_probabilities(p, weights), regions, classes, weights)
    logits = p.clamp(min=1e-30).log() + 3.5
    assert_is_eq1(mixtures_of_logits(logits, weights), regions, classes, weights)


def test_one_image_by_hand():
    # Class 0: (¾, ¼) with weight H(¾, ¼) and (1, 0) with weight ε, which all but vanishes.
    p = torch.tensor([[0.75, 1.0, 0.5, 0.0], [0.25, 0.0, 0.5, 1.0]]).view(1, 2, 1, 4)
    found = mixtures_of_probabilities(p[..., [0, 1, 3]])
    weighted = (0.75 * (H_QUARTER + EPSILON) + EPSILON) / (H_QUARTER + 2 * EPSILON)
    np.testing.assert_allclose(found.mixtures[0, 0], [weighted, 1 - weighted], atol=1e-6)
    assert found.mixtures[0, 1].tolist() == pytest.approx([0, 1])
    assert found.region_counts.tolist() == [[2, 1]]
    # Uniform weights: the mean of the two.
    plain = mixtures_of_probabilities(p[..., [0, 1, 3]], weights="uniform")
    np.testing.assert_allclose(plain.mixtures[0, 0], [0.875, 0.125], atol=1e-6)


def test_a_class_without_a_region_is_not_present_and_zero():
    found = mixtures_of_probabilities(torch.tensor([0.9, 0.1, 0.0]).view(1, 3, 1, 1))
    assert found.present.tolist() == [[True, False, False]]
    assert found.mixtures[0, 1:].tolist() == [[0, 0, 0], [0, 0, 0]]
    assert found.mixtures.dtype == torch.float32
    assert found.region_counts.dtype == torch.int64


def test_one_mixture_for_the_image_is_the_weighted_mean_of_all_regions():
    p = torch.tensor([[[0.75, 0.25], [0.25, 0.75], [0.0, 1.0]]])
    found = mixtures_of_probabilities(p.transpose(1, 2).unsqueeze(2), "uniform", region="image")
    assert found.mixtures.shape == (1, 1, 2)
    np.testing.assert_allclose(found.mixtures[0, 0], [1 / 3, 2 / 3], atol=1e-6)
    assert found.present.tolist() == [[True]]
    assert found.region_counts.tolist() == [[1, 2]]


@pytest.mark.parametrize("region", ["class", "image"])
def test_maps_boxes_and_vectors_agree(region):
    p = maps("random", 4, n=3, height=1, width=6).float()
    of_maps = mixtures_of_probabilities(p, region=region)
    of_boxes = mixtures_of_boxes([image[:, 0].T for image in p], region=region)
    torch.testing.assert_close(of_maps.mixtures, of_boxes.mixtures, atol=2e-6, rtol=1e-5)
    assert torch.equal(of_maps.present, of_boxes.present)
    assert torch.equal(of_maps.region_counts, of_boxes.region_counts)
    vectors = mixtures_of_vectors(p[:, :, 0, 0], region=region)
    pixels = mixtures_of_probabilities(p[:, :, :, :1], region=region)
    torch.testing.assert_close(vectors.mixtures, pixels.mixtures, atol=2e-6, rtol=1e-5)
    assert torch.equal(vectors.present, pixels.present)


def test_a_vector_is_its_own_mixture():
    found = mixtures_of_vectors(torch.tensor([[0.2, 0.8], [0.6, 0.4]]))
    torch.testing.assert_close(found.mixtures[:, 0], torch.tensor([[0.2, 0.8], [0.6, 0.4]]))
    by_class = mixtures_of_vectors(torch.tensor([[0.2, 0.8], [0.6, 0.4]]), region="class")
    assert by_class.present.tolist() == [[False, True], [True, False]]


def test_an_image_without_boxes_has_nothing():
    found = mixtures_of_boxes([torch.empty(0, 3), torch.tensor([[0.1, 0.2, 0.7]])])
    assert found.present.tolist() == [[False] * 3, [False, False, True]]
    assert found.region_counts.tolist() == [[0, 0, 0], [0, 0, 1]]
    assert torch.isfinite(found.mixtures).all()


def test_boxes_without_their_background_column_are_normalised():
    found = mixtures_of_boxes([torch.tensor([[0.3, 0.1]])])
    np.testing.assert_allclose(found.mixtures[0, 0], [0.75, 0.25], atol=1e-6)


def test_a_box_without_any_class_counts_as_the_uniform_distribution():
    """Its background may take all of the probability that float32 can hold."""
    boxes = [torch.tensor([[0.0, 0.0], [0.3, 0.1]])]
    found = mixtures_of_boxes(boxes, weights="uniform", region="image")
    np.testing.assert_allclose(found.mixtures[0, 0], [0.625, 0.375], atol=1e-6)
    means = means_of_regions(boxes)
    np.testing.assert_allclose(means.probabilities[0], [0.625, 0.375], atol=1e-6)
    assert means.uncertainties.isfinite().all()


def test_boxes_of_no_image_are_refused():
    with pytest.raises(ValueError, match="at least one image"):
        mixtures_of_boxes([])


@pytest.mark.parametrize("region", ["class", "image"])
def test_regions_of_other_classes_are_left_out(region):
    p = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6]])
    found = mixtures_of_boxes([p], "uniform", region, classes=[0, 2])
    assert found.region_counts.tolist() == [[1, 1, 1]]
    if region == "class":
        assert found.present.tolist() == [[True, False, True]]
        np.testing.assert_allclose(found.mixtures[0, 2], [0.2, 0.2, 0.6], atol=1e-6)
    else:
        np.testing.assert_allclose(found.mixtures[0, 0], [0.45, 0.2, 0.35], atol=1e-6)
    of_maps = mixtures_of_probabilities(p.T[None, :, None], "uniform", region, classes=[0, 2])
    torch.testing.assert_close(found.mixtures, of_maps.mixtures)
    assert torch.equal(found.present, of_maps.present)


def test_a_class_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="class 3 is not one of the 3 classes"):
        mixtures_of_vectors(torch.full((1, 3), 1 / 3), classes=[3])


def test_chunks_change_nothing(monkeypatch):
    logits = torch.randn(5, 4, 6, 7, generator=torch.Generator().manual_seed(0))
    whole = mixtures_of_logits(logits)
    for pixels in (10, 42, 100):  # parts of an image, one image, two images
        monkeypatch.setitem(mixtures_module._CHUNK_PIXELS, "cpu", pixels)
        parts = mixtures_of_logits(logits)
        torch.testing.assert_close(parts.mixtures, whole.mixtures, atol=1e-6, rtol=1e-5)
        assert torch.equal(parts.region_counts, whole.region_counts)


def test_the_input_is_left_as_it_was():
    logits = torch.randn(2, 3, 4, 4)
    before = logits.clone()
    mixtures_of_logits(logits)
    assert torch.equal(logits, before)
    p = logits.softmax(1)
    before = p.clone()
    mixtures_of_probabilities(p)
    assert torch.equal(p, before)


def test_half_precision_logits():
    logits = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    found = mixtures_of_logits(logits.bfloat16())
    expected = mixtures_of_logits(logits.bfloat16().float())
    torch.testing.assert_close(found.mixtures, expected.mixtures)


def test_batches_join():
    logits = torch.randn(5, 3, 4, 4, generator=torch.Generator().manual_seed(2))
    joined = ClassMixtures.concatenate([mixtures_of_logits(b) for b in logits.split(2)])
    whole = mixtures_of_logits(logits)
    assert len(joined) == 5
    torch.testing.assert_close(joined.mixtures, whole.mixtures)
    assert torch.equal(joined.present, whole.present)


@pytest.mark.gpu
def test_the_gpu_agrees():
    logits = torch.randn(3, 19, 40, 50, generator=torch.Generator().manual_seed(3))
    here, there = mixtures_of_logits(logits), mixtures_of_logits(logits.cuda())
    assert there.mixtures.is_cuda
    torch.testing.assert_close(there.mixtures.cpu(), here.mixtures, atol=2e-6, rtol=1e-5)
    assert torch.equal(there.present.cpu(), here.present)
