import math

import numpy as np
import pytest
import torch
from support.equations import all_distances, eq2, eq3, images_of

from cdal.selectors import (
    ClassMixtures,
    DiversityEmbedding,
    aggregate_contextual_diversity,
    contextual_diversity,
    metric,
)

MISSING = ("skip", "uniform")


def class_mixtures(mixtures, present):
    counts = present.long() if present.shape[1] > 1 else present.long().repeat(1, mixtures.shape[2])
    return ClassMixtures(mixtures, present, counts)


def dirichlet(n, rows, classes, concentration, seed=0):
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.full(classes, concentration), size=(n, rows))
    return torch.from_numpy(p).float()


def assert_agrees(mine, equation):
    error = np.abs(mine.double().numpy() - equation)
    assert (error <= np.maximum(1e-5 * equation, 2e-6)).all(), error.max()


def test_two_images_by_hand():
    # Both have class 0: KL((¾, ¼) ‖ (¼, ¾)) = ½ ln 3, the same the other way. Only the first has
    # class 1: (½, ½) against uniform is 0.
    mixtures = torch.tensor([[[0.75, 0.25], [0.5, 0.5]], [[0.25, 0.75], [0, 0]]])
    present = torch.tensor([[True, True], [True, False]])
    for missing in MISSING:
        d = contextual_diversity(
            class_mixtures(mixtures[:1], present[:1]),
            class_mixtures(mixtures[1:], present[1:]),
            missing,
        )
        assert d.tolist() == [[pytest.approx(0.5 * math.log(3))]]


def test_no_class_in_common_is_zero_to_the_letter_and_not_with_uniform():
    mixtures = torch.tensor([[[0.9, 0.1], [0, 0]], [[0, 0], [0.2, 0.8]]])
    present = torch.tensor([[True, False], [False, True]])
    both = class_mixtures(mixtures, present)
    assert contextual_diversity(both, both, "skip").tolist() == [[0, 0], [0, 0]]
    # ½ (0.4 ln(0.9/0.1) + 0.3 ln(0.8/0.2)): each against (½, ½).
    expected = 0.5 * (0.4 * math.log(9) + 0.3 * math.log(4))
    assert contextual_diversity(both, both, "uniform")[0, 1].item() == pytest.approx(expected)


def adversarial(classes):
    """Pools that break careless arithmetic, by name."""
    rng = np.random.default_rng(1)
    n = 14
    everything = np.ones((n, classes), dtype=bool)
    some = rng.random((n, classes)) < 0.5
    one = np.zeros_like(some)
    one[:, 0] = True
    own = np.zeros_like(some)
    own[np.arange(n), np.arange(n) % classes] = True
    one_hot = np.eye(classes)[rng.integers(classes, size=(n, classes))]
    uniform = np.full((n, classes, classes), 1 / classes)
    spread = rng.dirichlet(np.full(classes, 0.3), size=(n, classes))
    sharp = rng.dirichlet(np.full(classes, 0.02), size=(n, classes))
    near = spread[:1] + 1e-5 * rng.random((n, classes, classes))
    near_one_hot = one_hot[:1] * 0.999 + 1e-4 * rng.random((n, classes, classes))
    mixed = near_one_hot.copy()
    mixed[::2] = one_hot[::2]
    return {
        "one class": (spread, one),
        "all classes": (spread, everything),
        "some classes": (spread, some),
        "none in common": (spread, own),
        "one-hot": (one_hot, everything),
        "uniform": (uniform, some),
        "sharp": (sharp, some),
        "near-identical": (near, everything),
        "near-identical one-hot": (near_one_hot, everything),
        "near-identical beside far": (mixed, everything),
        "nothing present": (spread, np.zeros_like(some)),
    }


@pytest.mark.parametrize("missing", MISSING)
@pytest.mark.parametrize("classes", [2, 19])
@pytest.mark.parametrize("name", adversarial(2))
def test_eq2_and_eq3_are_the_double_loop(name, classes, missing):
    p, there = adversarial(classes)[name]
    p = p / p.sum(-1, keepdims=True) * there[..., None]
    mixtures, present = torch.from_numpy(p).float(), torch.from_numpy(there)
    pool = class_mixtures(mixtures, present)
    images = images_of(mixtures.numpy(), there)
    expected = np.array([[eq2(a, b, missing) for b in images] for a in images])
    assert_agrees(contextual_diversity(pool, pool, missing), expected)
    total = eq3(images, missing)
    assert aggregate_contextual_diversity(pool, missing) == pytest.approx(
        total, rel=1e-5, abs=2e-6 * len(images) ** 2
    )
    np.testing.assert_allclose(all_distances(mixtures, there, missing), expected, atol=1e-9)


@pytest.mark.parametrize("missing", MISSING)
@pytest.mark.parametrize("name", adversarial(2))
def test_eq2_of_150_classes(name, missing):
    p, there = adversarial(150)[name]
    p = p / p.sum(-1, keepdims=True) * there[..., None]
    mixtures, present = torch.from_numpy(p).float(), torch.from_numpy(there)
    pool = class_mixtures(mixtures, present)
    expected = all_distances(mixtures, there, missing)
    assert_agrees(contextual_diversity(pool, pool, missing), expected)


@pytest.mark.parametrize("missing", MISSING)
@pytest.mark.parametrize(("rows", "concentration"), [(6, 0.1), (6, 3.0), (1, 0.1), (1, 1.0)])
def test_eq2_of_random_pools(rows, concentration, missing):
    mixtures = dirichlet(60, rows, 6, concentration)
    present = torch.from_numpy(np.random.default_rng(2).random((60, rows)) < 0.7)
    mixtures = mixtures * present[..., None]
    pool = class_mixtures(mixtures, present)
    expected = all_distances(mixtures, present, missing)
    assert_agrees(contextual_diversity(pool, pool, missing), expected)


@pytest.mark.parametrize("missing", MISSING)
def test_eq3_of_near_identical_images_keeps_its_digits(missing):
    rng = np.random.default_rng(1)
    mixtures = torch.from_numpy(0.25 + 1e-6 * rng.normal(size=(14, 4, 4))).float()
    present = torch.ones(14, 4, dtype=torch.bool)
    total = eq3(images_of(mixtures.numpy(), present.numpy()), missing)
    assert 0 < total < 1e-6
    pool = class_mixtures(mixtures, present)
    assert aggregate_contextual_diversity(pool, missing) == pytest.approx(total, rel=1e-5)


@pytest.mark.parametrize("missing", MISSING)
def test_the_nearest_centre_is_found_in_blocks(missing, monkeypatch):
    mixtures = dirichlet(40, 5, 5, 0.3)
    present = torch.from_numpy(np.random.default_rng(3).random((40, 5)) < 0.6)
    embedding = DiversityEmbedding.of(mixtures * present[..., None], present, missing)
    rows, centres = torch.arange(5, 40), torch.tensor([4, 0, 2])
    expected = embedding.distances(rows, centres)
    monkeypatch.setitem(metric._BLOCK_BYTES, "cpu", 1000)
    distance, centre = embedding.nearest(rows, centres)
    torch.testing.assert_close(distance, expected.min(1).values)
    torch.testing.assert_close(embedding.pairwise(rows, centre), distance)


@pytest.mark.parametrize("missing", MISSING)
@pytest.mark.parametrize("rows", [1, 5])
def test_the_classes_parts_sum_to_the_distance(rows, missing):
    mixtures = dirichlet(20, rows, 5, 0.3)
    present = torch.from_numpy(np.random.default_rng(4).random((20, rows)) < 0.6)
    embedding = DiversityEmbedding.of(mixtures * present[..., None], present, missing)
    a, b = torch.arange(10), torch.arange(10, 20)
    parts = embedding.by_class(a, b)
    assert parts.shape == (10, 5)
    assert (parts >= 0).all()
    torch.testing.assert_close(parts.sum(1).float(), embedding.distances(a, b).diagonal())


def test_only_the_class_that_differs_has_a_part():
    mixtures = torch.tensor([[[0.7, 0.3], [0.4, 0.6]], [[0.7, 0.3], [0.1, 0.9]]])
    embedding = DiversityEmbedding.of(mixtures, torch.ones(2, 2, dtype=torch.bool))
    parts = embedding.by_class(torch.tensor([0]), torch.tensor([1]))
    assert parts[0, 0] == 0
    assert parts[0, 1] > 0.1


def test_left_and_right_factors_make_the_distance():
    mixtures = dirichlet(8, 4, 4, 1.0)
    embedding = DiversityEmbedding.of(mixtures, torch.ones(8, 4, dtype=torch.bool))
    expected = all_distances(mixtures, np.ones((8, 4), dtype=bool), "skip")
    products = (embedding.x.double() @ embedding.y.double().T).numpy()
    np.testing.assert_allclose(products, expected, atol=1e-5)
    torch.testing.assert_close(embedding.right(embedding.x.sum(0)), embedding.y.sum(0))


def test_nothing_against_something_is_an_empty_block():
    some = class_mixtures(dirichlet(3, 4, 4, 1.0), torch.ones(3, 4, dtype=torch.bool))
    none = class_mixtures(some.mixtures[:0], some.present[:0])
    assert contextual_diversity(none, some).shape == (0, 3)
    assert aggregate_contextual_diversity(none) == 0
