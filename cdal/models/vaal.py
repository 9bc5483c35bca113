"""VAAL (Sinha, Ebrahimi and Darrell, ICCV 2019): an autoencoder and its adversary.

A variational autoencoder learns from all images of a pool; a discriminator learns to tell from the
latent vector whether an image is labelled, and the autoencoder to prevent it (section 3.1 to 3.2,
equations 1 to 5). Layers, losses and settings are those of the authors' code
(github.com/sinhasam/vaal, ``model.py`` and ``solver.py``), in which the squared error is a mean and
the divergence a sum. It departs where images are not 32 pixels wide: those of at least 64 are
reduced to 64, where the authors crop, and all others to 32.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional
from torch.optim import Adam

from cdal.models.devices import seeded

LATENT = 32
"""The dimensions of the latent vector."""
HIDDEN = 512
"""The width of the discriminator."""
WIDTHS = {"published": (128, 256, 512, 1024), "small": (16, 32, 64, 128)}
"""The channels of the four convolutions."""
BATCH = 128
RATE = 5e-4
AUTOENCODER_STEPS = 2
"""Steps of the autoencoder per step of the discriminator."""
SIDES = (32, 64)


class Autoencoder(nn.Module):
    """Images (B, 3, S, S) in [-1, 1] to a latent distribution, and back."""

    def __init__(self, side: int, widths: Sequence[int]) -> None:
        super().__init__()
        self._grid = side // 8
        channels = (3, *widths)
        self.encoder = nn.Sequential(
            *(_halving(before, after) for before, after in pairwise(channels))
        )
        inner = widths[-1] * (side // 16) ** 2
        self.mean = nn.Linear(inner, LATENT)
        self.log_variance = nn.Linear(inner, LATENT)
        self.enter = nn.Linear(LATENT, widths[-1] * self._grid**2)
        back = tuple(reversed(widths))
        self.decoder = nn.Sequential(
            *(_doubling(before, after) for before, after in pairwise(back)),
            nn.ConvTranspose2d(widths[0], 3, 1),
        )
        for layer in self.modules():
            if isinstance(layer, nn.Linear | nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The mean and the logarithm of the variance of the latent vectors, (B, LATENT) each."""
        inner = self.encoder(images).flatten(1)
        return self.mean(inner), self.log_variance(inner)

    def decode(self, latent: Tensor) -> Tensor:
        """Images of latent vectors."""
        grid = self.enter(latent).unflatten(1, (-1, self._grid, self._grid))
        images: Tensor = self.decoder(grid)
        return images


class Vaal:
    """An autoencoder and a discriminator for a pool, of which some images are labelled.

    Args:
        images: the pool, (N, 3, S, S) uint8; kept on the device at the side that is used.
        labelled: rows of the pool, at least one.
        layers: a key of ``WIDTHS``.
        seed: of weights, batches and latent vectors.
        device: where it is trained.
    """

    def __init__(
        self,
        images: Tensor,
        labelled: Sequence[int],
        layers: str,
        seed: int,
        device: torch.device,
    ) -> None:
        side = SIDES[images.shape[-1] >= SIDES[1]]
        self._images = torch.cat([reduced(part, side) for part in torch.split(images, BATCH)]).to(
            device
        )
        mask = torch.zeros(len(images), dtype=torch.bool)
        mask[list(labelled)] = True
        self._labelled, self._others = mask.nonzero()[:, 0], (~mask).nonzero()[:, 0]
        self._seed = seed
        self._device = device
        self._draws = Generator().manual_seed(seed)
        with seeded(seed, torch.device("cpu")):
            autoencoder = Autoencoder(side, WIDTHS[layers])
            discriminator = nn.Sequential(
                nn.Linear(LATENT, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU(),
                nn.Linear(HIDDEN, 1),
            )  # fmt: skip
        self._autoencoder, self._discriminator = autoencoder.to(device), discriminator.to(device)
        self._teachers = [
            Adam(part.parameters(), lr=RATE) for part in (self._autoencoder, self._discriminator)
        ]

    def train(self, epochs: int, progress: Callable[[float], None] = lambda _: None) -> None:
        """Learn for as many steps as batches cover the pool so often."""
        if len(self._others) == 0:
            return
        steps = epochs * -(-len(self._images) // BATCH)
        self._autoencoder.train()
        with seeded(self._seed, self._device):
            for step in range(steps):
                for _ in range(AUTOENCODER_STEPS):
                    self._step(0, self._autoencoder_loss())
                self._step(1, self._discriminator_loss())
                progress((step + 1) / steps)
        self._autoencoder.eval()

    @torch.inference_mode()
    def likely_labelled(self) -> Tensor:
        """How likely each image of the pool is labelled, (N,) float32 in [0, 1]."""
        self._autoencoder.eval()
        parts = [
            self._discriminator(self._autoencoder.encode(scaled(part))[0])
            for part in torch.split(self._images, 4 * BATCH)
        ]
        return torch.cat(parts)[:, 0].sigmoid()

    def _step(self, part: int, loss: Tensor) -> None:
        self._teachers[part].zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        self._teachers[part].step()

    def _autoencoder_loss(self) -> Tensor:
        """Equations 1 to 4: both kinds of images are rebuilt, and both are to pass as labelled."""
        total = torch.zeros((), device=self._device)
        for rows in (self._labelled, self._others):
            images = self._batch(rows)
            mean, log_variance = self._autoencoder.encode(images)
            latent = mean + torch.randn_like(mean) * (log_variance / 2).exp()
            rebuilt = functional.mse_loss(self._autoencoder.decode(latent), images)
            divergence = -0.5 * (1 + log_variance - mean.square() - log_variance.exp()).sum()
            total = total + rebuilt + divergence + _cross_entropy(self._discriminator(mean), 1.0)
        return total

    def _discriminator_loss(self) -> Tensor:
        """Equation 5."""
        with torch.no_grad():
            means = [
                self._autoencoder.encode(self._batch(rows))[0]
                for rows in (self._labelled, self._others)
            ]
        return _cross_entropy(self._discriminator(means[0]), 1.0) + _cross_entropy(
            self._discriminator(means[1]), 0.0
        )

    def _batch(self, rows: Tensor) -> Tensor:
        drawn = torch.randint(len(rows), (min(BATCH, len(self._images)),), generator=self._draws)
        return scaled(self._images[rows[drawn].to(self._device)])


def reduced(images: Tensor, side: int) -> Tensor:
    """Images (B, 3, S, S) uint8 at another side."""
    if images.shape[-1] == side:
        return images
    small = functional.interpolate(
        images.float(), size=(side, side), mode="bilinear", antialias=True, align_corners=False
    )
    return small.round().clamp(0, 255).to(torch.uint8)


def scaled(images: Tensor) -> Tensor:
    """Images in [0, 255] to [-1, 1]."""
    return images.float() / 127.5 - 1


def _cross_entropy(logits: Tensor, wanted: float) -> Tensor:
    return functional.binary_cross_entropy_with_logits(logits, torch.full_like(logits, wanted))


def _halving(before: int, after: int) -> nn.Sequential:
    convolution = nn.Conv2d(before, after, 4, stride=2, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(after), nn.ReLU(inplace=True))


def _doubling(before: int, after: int) -> nn.Sequential:
    convolution = nn.ConvTranspose2d(before, after, 4, stride=2, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(after), nn.ReLU(inplace=True))
