"""Small pools for the selectors' tests."""

from __future__ import annotations

import numpy as np
import torch

from cdal.selectors import Pool


def full_pool(n=40, classes=4, labelled=(), seed=0):
    """A pool with every array that a selector may need, without ties."""
    rng = np.random.default_rng(seed)
    present = rng.random((n, classes)) < 0.7
    mixtures = rng.dirichlet(np.full(classes, 0.5), size=(n, classes)) * present[..., None]
    samples = rng.dirichlet(np.full(classes, 0.5), size=(n, 5))
    mask = np.zeros(n, dtype=bool)
    mask[list(labelled)] = True
    return Pool(
        mixtures=torch.from_numpy(mixtures).float(),
        present=torch.from_numpy(present),
        labelled=torch.from_numpy(mask),
        features=torch.from_numpy(rng.normal(size=(n, 6))).float(),
        probabilities=torch.from_numpy(samples.mean(1)).float(),
        region_counts=torch.from_numpy(rng.integers(1, 50, size=(n, classes)) * present),
        samples=torch.from_numpy(samples).float(),
        predicted_losses=torch.from_numpy(rng.normal(size=n)).float(),
        likely_labelled=torch.from_numpy(rng.random(n)).float(),
        uncertainties=torch.from_numpy(rng.random((n, 3))).float(),
        costs=torch.from_numpy(rng.random(n)).float(),
        image_of=torch.arange(n) // 4,
    )


def vector_pool(vectors, labelled=()):
    """A pool with one class vector per image, (N, C), as in classification."""
    p = torch.tensor(vectors, dtype=torch.float32)
    mask = torch.zeros(len(p), dtype=torch.bool)
    mask[list(labelled)] = True
    return Pool(
        mixtures=p[:, None],
        present=torch.ones(len(p), 1, dtype=torch.bool),
        labelled=mask,
        probabilities=p,
    )
