"""Sparse mixtures: the picks are those of dense ones, and a wrong tensor is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from support.pools import full_pool
from torch import Tensor

from cdal.selectors import Pool, PoolError, make_selector, mixture_vectors, sparse_mixtures
from cdal.selectors.diversity import DiversityEmbedding
from cdal.selectors.sparse import mixture_rows
from cdal.selectors.synthetic import confused_pool

PRESENT = torch.tensor([[True, False], [False, False], [True, True]])
DENSE = torch.tensor([[[0.9, 0.1], [0, 0]], [[0, 0], [0, 0]], [[0.5, 0.5], [0.2, 0.8]]])


def sparse(pool: Pool) -> Pool:
    vectors = mixture_vectors(pool.mixtures, pool.present)
    return replace(pool, mixtures=sparse_mixtures(vectors, pool.present))


def test_rows_are_those_of_the_dense_tensor() -> None:
    vectors = torch.tensor([[0.9, 0.1], [0.5, 0.5], [0.2, 0.8]])
    mixtures = sparse_mixtures(vectors, PRESENT)
    assert mixtures.to_dense().equal(DENSE)
    assert mixture_vectors(DENSE, PRESENT).equal(vectors)
    assert mixture_vectors(mixtures, PRESENT).data_ptr() == vectors.data_ptr()
    rows: list[Tensor | slice] = [torch.tensor([2, 1, 2]), torch.tensor([], dtype=torch.int64)]
    for wanted in [*rows, slice(1, 3), slice(None)]:
        assert mixture_rows(mixtures, wanted).equal(DENSE[wanted])


@pytest.mark.parametrize("missing", ["uniform", "skip"])
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("images", "classes"), [(40, 4), (700, 19)])
def test_picks_are_exactly_those_of_dense_mixtures(
    images: int, classes: int, seed: int, missing: str
) -> None:
    pool = confused_pool(images, classes, labelled=seed, seed=seed)
    # Copies, so that ties occur.
    pool = pool.take(torch.cat([torch.arange(images), torch.arange(0, images, 3)]))
    for name in ("cdal-cs", "cd-greedy"):
        selector = make_selector(name, {"missing": missing})
        expected = selector.select(pool, 25, seed)
        assert selector.select(sparse(pool), 25, seed) == expected


def test_vectors_made_in_blocks_are_those_made_at_once() -> None:
    pool = confused_pool(300, classes=19, labelled=2)
    dense = DiversityEmbedding.of(pool.mixtures, pool.present)
    lazy = DiversityEmbedding.of(sparse(pool).mixtures, pool.present)
    assert lazy.vectors is None
    assert lazy.x.equal(dense.x)
    assert lazy.scale.equal(dense.scale)


def test_a_policy_takes_sparse_mixtures() -> None:
    pool = full_pool(8, labelled=(1, 2))
    selector = make_selector("cdal-rl", {"epochs": 1, "episodes": 1, "cells": 2})
    assert selector.select(sparse(pool), 2) == selector.select(pool, 2)


def test_a_pool_of_some_rows_and_classes() -> None:
    pool = confused_pool(12, classes=4, labelled=2)
    rows = torch.tensor([5, 0, 11])
    assert sparse(pool).take(rows).dense().mixtures.equal(pool.take(rows).mixtures)
    assert sparse(pool).of_classes([1, 3]).mixtures.equal(pool.of_classes([1, 3]).mixtures)


@pytest.mark.parametrize(
    ("vectors", "present", "message"),
    [
        ([[0.9, 0.1], [0.5, 0.5], [0.2, 0.8]], ~PRESENT, "other classes than present"),
        ([[0.9, 0.1], [0.5, 0.6], [0.2, 0.8]], PRESENT, r"mixtures\[2\]\[0\] sums to 1.1"),
        ([[0.9, 0.1], [0.5, 0.5], [-0.2, 1.2]], PRESENT, r"mixtures\[2\]\[1\]"),
        ([[torch.nan, 0.1], [0.5, 0.5], [0.2, 0.8]], PRESENT, "NaN or infinity in image 0"),
    ],
)
def test_a_wrong_tensor_is_refused(
    vectors: list[list[float]], present: Tensor, message: str
) -> None:
    mixtures = sparse_mixtures(torch.tensor(vectors), PRESENT)
    with pytest.raises(PoolError, match=message):
        Pool(mixtures, present, torch.zeros(3, dtype=torch.bool))


@pytest.mark.gpu
@pytest.mark.parametrize("missing", ["uniform", "skip"])
def test_the_gpu_picks_from_sparse_mixtures_what_the_cpu_picks(missing: str) -> None:
    pool = confused_pool(700, classes=19, labelled=3)
    selector = make_selector("cdal-cs", {"missing": missing})
    assert selector.select(sparse(pool).to("cuda"), 40).indices == selector.select(pool, 40).indices
