from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from support.colours import small_network
from torch import Tensor

from cdal.models import ModelError


@pytest.mark.parametrize("shape", [(3, 32, 32), (3, 1, 1), (3, 300, 20), (3, 33, 64)])
def test_prepare_resizes_any_shape(shape: tuple[int, ...]) -> None:
    prepared = small_network().prepare(torch.full(shape, 7, dtype=torch.uint8))
    assert prepared.shape == (3, 32, 32)
    assert prepared.dtype == torch.uint8
    assert bool((prepared == 7).all())


def test_prepare_does_not_crop() -> None:
    image = torch.zeros((3, 64, 128), dtype=torch.uint8)
    image[:, :, :32] = 200  # the left quarter
    prepared = small_network().prepare(image)[0]
    assert bool((prepared[:, :7] > 190).all())
    assert bool((prepared[:, 9:] < 10).all())


@pytest.mark.parametrize(
    "image",
    [
        torch.zeros((3, 32, 32)),
        torch.zeros((1, 32, 32), dtype=torch.uint8),
        torch.zeros((32, 32), dtype=torch.uint8),
    ],
)
def test_prepare_refuses_anything_but_an_image(image: Tensor) -> None:
    with pytest.raises(ModelError, match=r"^An image must be uint8 of shape \(3, H, W\), not"):
        small_network().prepare(image)


def test_prepare_refuses_an_empty_image() -> None:
    with pytest.raises(ModelError, match="must not be empty"):
        small_network().prepare(torch.zeros((3, 0, 8), dtype=torch.uint8))


def test_prepare_works_in_threads() -> None:
    network = small_network()
    images = [torch.randint(0, 256, (3, 50 + i, 40), dtype=torch.uint8) for i in range(40)]
    with ThreadPoolExecutor(8) as pool:
        in_threads = list(pool.map(network.prepare, images))
    for image, prepared in zip(images, in_threads, strict=True):
        assert torch.equal(prepared, network.prepare(image))


def test_normalise_by_hand() -> None:
    images = torch.tensor([0.0, 255.0, 127.5]).view(1, 3, 1, 1)
    normal = small_network().normalise(images).flatten().tolist()
    assert normal == pytest.approx(
        [-0.485 / 0.229, (1 - 0.456) / 0.224, (0.5 - 0.406) / 0.225], rel=1e-5
    )


@pytest.mark.parametrize(("native", "half"), [(True, torch.bfloat16), (False, torch.float16)])
def test_a_gpu_that_only_emulates_bfloat16_computes_in_float16(
    monkeypatch: pytest.MonkeyPatch, native: bool, half: torch.dtype
) -> None:
    # Simulates an A100, and a T4, which only emulates bfloat16.
    def supported(including_emulation: bool = True) -> bool:
        return native or including_emulation

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    monkeypatch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
    network = small_network()
    network.device = torch.device("cuda")
    assert network.autocast().fast_dtype == half
