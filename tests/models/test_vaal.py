"""VAAL on images of two colours, of which only one is labelled."""

from __future__ import annotations

import pytest
import torch

from cdal.models.vaal import LATENT, WIDTHS, Autoencoder, Vaal, reduced


@pytest.mark.parametrize("side", [32, 64])
def test_an_image_has_a_latent_vector_and_comes_back_at_its_size(side: int) -> None:
    autoencoder = Autoencoder(side, WIDTHS["small"])
    mean, log_variance = autoencoder.encode(torch.zeros(2, 3, side, side))
    assert mean.shape == log_variance.shape == (2, LATENT)
    assert autoencoder.decode(mean).shape == (2, 3, side, side)


def test_the_published_layers_are_the_authors() -> None:
    autoencoder = Autoencoder(32, WIDTHS["published"])
    kernels = [tuple(p.shape) for p in autoencoder.encoder.parameters() if p.ndim == 4]
    assert kernels == [(128, 3, 4, 4), (256, 128, 4, 4), (512, 256, 4, 4), (1024, 512, 4, 4)]
    assert autoencoder.mean.in_features == 1024 * 2 * 2


def coloured(count: int) -> torch.Tensor:
    """Half of the images dark, half bright, with a little noise."""
    noise = torch.randint(0, 30, (2 * count, 3, 32, 32), generator=torch.Generator().manual_seed(1))
    noise[count:] += 200
    return noise.to(torch.uint8)


@pytest.mark.slow
def test_images_unlike_labelled_ones_are_taken_for_unlabelled() -> None:
    images = coloured(8)
    vaal = Vaal(images, range(4), "small", 0, torch.device("cpu"))
    shares: list[float] = []
    vaal.train(20, shares.append)
    assert shares[-1] == 1
    likely = vaal.likely_labelled()
    assert likely.shape == (16,)
    assert float(likely[4:8].mean()) > float(likely[8:].mean())


def test_the_same_seed_says_the_same() -> None:
    said = []
    for _ in range(2):
        vaal = Vaal(coloured(4), [0], "small", 3, torch.device("cpu"))
        vaal.train(1)
        said.append(vaal.likely_labelled())
    assert torch.equal(*said)


def test_larger_images_are_reduced() -> None:
    assert reduced(torch.full((2, 3, 96, 96), 7, dtype=torch.uint8), 64).unique().tolist() == [7]
    vaal = Vaal(torch.zeros(3, 3, 40, 40, dtype=torch.uint8), [0], "small", 0, torch.device("cpu"))
    assert vaal.likely_labelled().shape == (3,)
