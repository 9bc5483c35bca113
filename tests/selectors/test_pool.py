import dataclasses

import pytest
import torch
from support.pools import full_pool, vector_pool

from cdal.selectors import Pool, PoolError


def refused(message, **arrays):
    with pytest.raises(PoolError, match=f"^{message}$"):
        dataclasses.replace(full_pool(5, 3, seed=1), **arrays)


def ones(*shape, dtype=torch.float32):
    return torch.ones(shape, dtype=dtype)


def test_shapes():
    refused(r"mixtures must have the shape \(N, C, C\) or \(N, 1, C\), not \(5, 2, 3\)",
            mixtures=ones(5, 2, 3))  # fmt: skip
    refused(r"mixtures must have the shape \(N, C, C\) or \(N, 1, C\), not \(5, 3\)",
            mixtures=ones(5, 3))  # fmt: skip
    refused("mixtures has no classes", mixtures=ones(5, 1, 0), present=ones(5, 1))
    for name, shape, wanted in (
        ("present", (5, 4), "5, 3"),
        ("labelled", (4,), "5,"),
        ("features", (4, 6), "5, D"),
        ("features", (5, 0), "5, D"),
        ("probabilities", (5, 4), "5, 3"),
        ("region_counts", (5,), "5, 3"),
        ("samples", (5, 3), "5, S, 3"),
    ):
        found = ", ".join(map(str, shape)) + ("," if len(shape) == 1 else "")
        refused(
            rf"{name} must have the shape \({wanted}\) to agree with mixtures \(5, 3, 3\), "
            rf"not \({found}\)",
            **{name: ones(*shape)},
        )


def test_types():
    refused("mixtures must be float32, not float64", mixtures=full_pool(5, 3).mixtures.double())
    refused("present must be bool, not float32", present=ones(5, 3))
    refused("labelled must be bool, not int64", labelled=ones(5, dtype=torch.int64))
    refused("features must be float32, not float16", features=ones(5, 2, dtype=torch.float16))
    refused("region_counts must be int64 or float32, not int32",
            region_counts=ones(5, 3, dtype=torch.int32))  # fmt: skip
    counts = full_pool(5, 3, seed=1).region_counts.float()
    assert dataclasses.replace(full_pool(5, 3, seed=1), region_counts=counts) is not None


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("name", ["mixtures", "features", "probabilities", "samples"])
def test_not_finite(name, bad):
    array = getattr(full_pool(5, 3, seed=1), name).clone()
    array[2].flatten()[1] = bad
    array[4].flatten()[0] = bad
    refused(f"{name} has NaN or infinity in image 2", **{name: array})


def test_infinities_of_both_signs_do_not_cancel():
    features = ones(5, 2)
    features[3] = torch.tensor([torch.inf, -torch.inf])
    refused("features has NaN or infinity in image 3", features=features)


def test_negative():
    for name in ("mixtures", "probabilities", "samples", "region_counts"):
        array = getattr(full_pool(5, 3, seed=1), name).clone()
        array[3].flatten()[0] = -1
        refused(f"{name} is negative in image 3", **{name: array})


def test_sums():
    pool = full_pool(5, 3, seed=1)
    refused(r"probabilities\[0\] sums to 3, not to 1", probabilities=ones(5, 3))
    samples = pool.samples.clone()
    samples[1, 2] *= 0.5
    refused(r"samples\[1\]\[2\] sums to 0.5, not to 1", samples=samples)
    there = torch.ones_like(pool.present)
    there[4, 1] = False
    mixtures = torch.full((5, 3, 3), 1 / 3)
    refused(r"mixtures\[4\]\[1\] sums to 1, not to 0, since present is false",
            mixtures=mixtures, present=there)  # fmt: skip
    mixtures[2, 0] = 0
    mixtures[4, 1] = 0
    refused(r"mixtures\[2\]\[0\] sums to 0, not to 1, since present is true",
            mixtures=mixtures, present=there)  # fmt: skip


def test_rounding_of_half_precision_is_no_fault():
    pool = full_pool(200, 30)
    rounded = pool.mixtures.half().float()
    assert len(dataclasses.replace(pool, mixtures=rounded)) == 200


@pytest.mark.gpu
def test_devices_must_agree():
    features = full_pool(5, 3, seed=1).features.cuda()
    refused("features is on cuda:0, but mixtures is on cpu", features=features)


def test_rows_are_taken_in_order():
    pool = full_pool(5, 3, labelled=[1, 4])
    assert pool.unlabelled.tolist() == [0, 2, 3]
    some = pool.take(torch.tensor([4, 0]))
    assert some.labelled.tolist() == [True, False]
    assert torch.equal(some.features, pool.features[[4, 0]])
    assert some.unlabelled.tolist() == [1]


def test_the_arrays_that_are_there():
    bare = full_pool(5, 3)
    bare = Pool(bare.mixtures, bare.present, bare.labelled)
    assert list(bare.arrays()) == ["mixtures", "present", "labelled"]
    assert bare.to("cpu").features is None
    with pytest.raises(PoolError, match="features is missing: the selector x needs it"):
        bare.need("features", "x")


def test_of_some_classes_only_their_mixtures_are_left():
    pool = full_pool(6, classes=4)
    some = pool.of_classes([1, 3])
    assert torch.equal(some.mixtures[:, [1, 3]], pool.mixtures[:, [1, 3]])
    assert torch.equal(some.present[:, [1, 3]], pool.present[:, [1, 3]])
    assert not some.present[:, [0, 2]].any()
    assert not some.mixtures[:, [0, 2]].any()


def test_classes_that_are_not_there_are_refused():
    with pytest.raises(PoolError, match="there is no class 4: the pool's are 0 to 3"):
        full_pool(2, classes=4).of_classes([0, 4])
    with pytest.raises(PoolError, match="one row per image"):
        vector_pool([[0.5, 0.5]]).of_classes([0])
