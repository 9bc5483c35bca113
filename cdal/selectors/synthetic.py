"""Synthetic pools, for testing and measuring selectors without images or a network."""

from __future__ import annotations

import numpy as np
import torch

from cdal.selectors.pool import Pool


def confused_pool(
    images: int, classes: int = 10, features: int = 32, labelled: int = 0, seed: int = 0
) -> Pool:
    """Make a pool in which each class is confused with a few others, differently in each image.

    An image holds some of the classes; more common classes come first. The mixture of a class
    leans towards one of three partners, and how far differs by image, from hardly to almost
    entirely. Features are a noisy linear map of the classes that are present.

    Args:
        images: N.
        classes: C, at least 4.
        features: D.
        labelled: number of random images that are labelled.
        seed: fixes everything.

    Returns:
        A pool on the CPU with mixtures (N, C, C), present, features, probabilities, region counts.
    """
    rng = np.random.default_rng(seed)
    frequency = np.linspace(0.9, 0.2, classes)
    present = rng.random((images, classes)) < frequency
    present[np.arange(images), rng.integers(classes, size=images)] = True

    partners = (np.arange(classes)[:, None] + [1, 2, 3]) % classes
    partner = partners[np.arange(classes), rng.integers(3, size=(images, classes))]
    lean = rng.beta(1.2, 3.0, size=(images, classes)) * 0.95
    mixtures = rng.dirichlet(np.full(classes, 0.5), size=(images, classes)) * 0.05
    rows, cols = np.indices(present.shape)
    mixtures[rows, cols, cols] += 0.95 * (1 - lean)
    mixtures[rows, cols, partner] += 0.95 * lean
    mixtures *= present[..., None]

    counts = rng.integers(1, 200, size=present.shape) * present
    looks = present @ rng.normal(size=(classes, features))
    looks = looks + rng.normal(size=(images, features))
    shares = (counts[..., None] * mixtures).sum(1)
    mask = np.zeros(images, dtype=bool)
    mask[rng.choice(images, labelled, replace=False)] = True
    return Pool(
        mixtures=torch.from_numpy(mixtures).float(),
        present=torch.from_numpy(present),
        labelled=torch.from_numpy(mask),
        features=torch.from_numpy(looks).float(),
        probabilities=torch.from_numpy(shares / shares.sum(1, keepdims=True)).float(),
        region_counts=torch.from_numpy(counts),
    )
