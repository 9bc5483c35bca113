from __future__ import annotations

import pytest
import torch

from cdal.models import ClassificationNetwork, ModelError, choose_device
from cdal.models.devices import (
    choose_image_size,
    prediction_batch_size,
    training_batch_size,
)

CPU = torch.device("cpu")
CUDA = torch.device("cuda")
DEFAULTS = ClassificationNetwork.defaults


def test_the_cpu_is_always_there() -> None:
    assert choose_device("cpu") == CPU


def test_auto_takes_what_there_is() -> None:
    assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize("name", ["gpu", "", "meta", "cuda:x"])
def test_refuses_unknown_names(name: str) -> None:
    with pytest.raises(ModelError, match=rf'^The device "{name}" is not one of auto, cpu'):
        choose_device(name)


def test_refuses_a_device_that_is_not_there() -> None:
    with pytest.raises(ModelError, match=r'^There is no device "cuda:99": torch sees '):
        choose_device("cuda:99")


@pytest.mark.parametrize(
    ("sizes", "cpu", "cuda"),
    [
        ([(32, 32)] * 3, 32, 32),
        ([(28, 28)], 32, 32),
        ([(8, 8)], 32, 32),
        ([(96, 96), (90, 100), (4000, 3000)], 96, 96),
        ([(480, 640)], 128, 224),
        ([(50, 200)], 96, 96),  # as many pixels as 100 × 100
        ([], 128, 224),
    ],
)
def test_image_size(sizes: list[tuple[int, int]], cpu: int, cuda: int) -> None:
    assert choose_image_size(sizes, CPU, DEFAULTS) == cpu
    assert choose_image_size(sizes, CUDA, DEFAULTS) == cuda


def test_batches_on_the_cpu() -> None:
    assert training_batch_size(CPU, 64, DEFAULTS) == 32
    assert prediction_batch_size(CPU, 64, DEFAULTS) == 64


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here")
def test_batches_on_cuda_are_smaller_for_larger_images() -> None:
    sizes = [prediction_batch_size(CUDA, size, DEFAULTS) for size in (64, 512, 4096)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] >= 1
