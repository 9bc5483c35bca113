from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from cdal.models import ClassificationNetwork, ModelError, choose_device
from cdal.models.devices import (
    choose_image_size,
    one_core_spared,
    prediction_batch_size,
    training_batch_size,
)

CPU = torch.device("cpu")
CUDA = torch.device("cuda")
DEFAULTS = ClassificationNetwork.defaults


def test_the_cpu_is_always_available() -> None:
    assert choose_device("cpu") == CPU


def test_auto_prefers_cuda() -> None:
    assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize("name", ["gpu", "", "meta", "cuda:x"])
def test_refuses_unknown_names(name: str) -> None:
    with pytest.raises(ModelError, match=rf'device "{name}".*auto, cpu, cuda'):
        choose_device(name)


def test_refuses_a_device_that_does_not_exist() -> None:
    with pytest.raises(ModelError, match=r'"cuda:99" does not exist: torch finds \d'):
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
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_cuda_larger_images_mean_smaller_batches() -> None:
    sizes = [prediction_batch_size(CUDA, size, DEFAULTS) for size in (64, 512, 4096)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] >= 1


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize(("all_of_them", "fewer"), [(3, 2), (2, 1), (1, 1)])
def test_spares_a_core_in_this_thread_alone(all_of_them: int, fewer: int) -> None:
    torch.set_num_threads(all_of_them)
    with ThreadPoolExecutor(1) as earlier:
        assert earlier.submit(torch.get_num_threads).result() == all_of_them
        with one_core_spared(), ThreadPoolExecutor(1) as later:
            assert torch.get_num_threads() == fewer
            assert earlier.submit(torch.get_num_threads).result() == all_of_them
            assert later.submit(torch.get_num_threads).result() == all_of_them
    assert torch.get_num_threads() == all_of_them
