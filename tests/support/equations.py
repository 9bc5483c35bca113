"""The equations of the paper as loops over float64 numbers: slow, but easy to check.

Agarwal et al., "Contextual Diversity for Active Learning", ECCV 2020, sections 3.1 and 3.2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

EPSILON = 1e-6
FLOOR = 1e-12


def entropy_in_bits(p: Sequence[float]) -> float:
    return -sum(x * math.log2(x) for x in p if x > 0)


def eq1(regions, classes, weights="entropy"):
    """One image's mixtures by class, {c: [C floats]}, from its regions' probability vectors."""
    sums = {}
    for p in regions:
        label = max(range(classes), key=lambda j: p[j])
        w = entropy_in_bits(p) + EPSILON if weights == "entropy" else 1.0
        total, weighted = sums.get(label, (0.0, [0.0] * classes))
        sums[label] = (total + w, [s + w * x for s, x in zip(weighted, p, strict=True)])
    return {c: [s / total for s in weighted] for c, (total, weighted) in sums.items()}


def kl(p, q):
    return sum(
        x * (math.log(max(x, FLOOR)) - math.log(max(y, FLOOR))) for x, y in zip(p, q, strict=True)
    )


def eq2(a, b, missing="skip"):
    """Contextual diversity of two images given as {row: mixture}."""
    distance = 0.0
    for c in sorted(a.keys() | b.keys()):
        if c in a and c in b:
            p, q = a[c], b[c]
        elif missing == "uniform":
            p = a[c] if c in a else b[c]
            q = [1 / len(p)] * len(p)
        else:
            continue
        distance += 0.5 * kl(p, q) + 0.5 * kl(q, p)
    return distance


def eq3(images, missing="skip"):
    return sum(eq2(a, b, missing) for a in images for b in images)


def image_of(mixtures, present):
    """An image as ``eq2`` takes it, from arrays (R, C) and (R,)."""
    return {r: [float(x) for x in mixtures[r]] for r in range(len(present)) if present[r]}


def images_of(mixtures, present):
    return [image_of(m, p) for m, p in zip(mixtures, present, strict=True)]


def all_distances(mixtures, present, missing):
    """Eq. 2 of all pairs, (N, N) float64, in NumPy: the loop above is also checked against it."""
    p = np.asarray(mixtures, dtype=np.float64)
    there = np.asarray(present)
    if missing == "uniform":
        p = np.where(there[..., None], p, 1 / p.shape[-1])
        there = np.ones_like(there)
    log = np.log(np.maximum(p, FLOOR))
    d = np.zeros((len(p), len(p)))
    for i in range(len(p)):
        terms = 0.5 * ((p[i] - p) * (log[i] - log)).sum(-1)
        d[i] = (terms * (there[i] & there)).sum(-1)
    return d


def k_center(distances, labelled, budget):
    """k-center greedy on a full matrix with some images labelled: the picks."""
    gone = np.array(labelled, dtype=bool)
    nearest = distances[gone].min(0)
    picks = []
    while len(picks) < budget:
        picks.append(int(np.argmax(np.where(gone, -np.inf, nearest))))
        gone[picks[-1]] = True
        nearest = np.minimum(nearest, distances[picks[-1]])
    return picks
