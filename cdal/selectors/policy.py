"""The Bi-LSTM policy of CDAL-RL (CDAL, ECCV 2020, section 3.3): one logit per image of a pool."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from cdal.selectors.metric import Tick, go_on

# Images whose activations are held at once. A larger pool is processed in chunks of about this
# many, recomputed in the backward pass, so memory does not grow with the pool.
_CHUNK_IMAGES = 4096
# Least probability before the logarithm; absent mixtures are zeros, and become this.
_FLOOR = 1e-4


class PolicyFileError(ValueError):
    """A file of policy weights cannot be used; the message names the file and says why."""


class BiLSTMPolicy(nn.Module):
    """A bidirectional LSTM over windows of images, and a linear layer to one logit per image.

    Inputs are standardised by the ``shift`` and ``scale`` of each input column, which are part of
    the state: a policy trained once sees later pools as it saw the first one.

    Args:
        inputs: length of an image's input vector, R·C.
        cells: LSTM cells per direction: 256 in the paper, 1,024 for 100 classes.
        published: whether it is the paper's, which reads the mixtures. Otherwise it reads their
            logarithms, as contextual diversity does, and its logits are 0 before training.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, inputs: int, cells: int, *, published: bool = False) -> None:
        super().__init__()
        self.published = published
        self.lstm = nn.LSTM(inputs, cells, batch_first=True, bidirectional=True)
        self.head = nn.Linear(2 * cells, 1)
        if not published:
            nn.init.zeros_(self.head.weight)
            nn.init.zeros_(self.head.bias)
        self.register_buffer("shift", torch.zeros(inputs))
        self.register_buffer("scale", torch.ones(inputs))

    @classmethod
    def seeded(
        cls, inputs: int, cells: int, seed: int, device: torch.device, *, published: bool = False
    ) -> BiLSTMPolicy:
        """Build a policy whose weights depend on ``seed`` alone, not on the global generator."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            policy = cls(inputs, cells, published=published)
        return policy.to(device)

    def forward(self, windows: Tensor) -> Tensor:
        """Compute the logits of A windows of T images, (A, T, inputs) float32: (A, T) float32."""
        states, _ = self.lstm((windows - self.shift) / self.scale)
        logits: Tensor = self.head(states).squeeze(-1)
        return logits

    @torch.no_grad()
    def standardise(self, mixtures: Tensor, images: Tensor, tick: Tick = go_on) -> None:
        """Take the mean and the deviation of each input column from these images of the pool.

        Args:
            mixtures: of the whole pool, (N, R, C) float32.
            images: which of them, (n,) int64, at least one.
            tick: called between blocks.
        """
        total = mixtures.new_zeros(self.shift.shape, dtype=torch.float64)
        square = torch.zeros_like(total)
        for rows in torch.split(images, _CHUNK_IMAGES):
            tick()
            x = self._read(mixtures[rows].flatten(1)).double()
            total += x.sum(0)
            square += x.square().sum(0)
        mean = total / len(images)
        deviation = (square / len(images) - mean.square()).clamp(min=0).sqrt()
        self.shift.copy_(mean)
        # A constant column carries no information: keep it at 0 instead of amplifying rounding.
        self.scale.copy_(torch.where(deviation > 1e-6, deviation, 1.0))

    def logits(self, mixtures: Tensor, order: Tensor, window: int, tick: Tick = go_on) -> Tensor:
        """Compute the logits of images read in a given order, window by window.

        No state passes from one window to the next (truncated backpropagation), so windows are a
        batch and each image's logit depends only on the images in its own window. The last window
        is filled with images from the start of the order, whose second logits are dropped.

        Args:
            mixtures: of the whole pool, (N, R, C) float32, zero where not present.
            order: the images to read, (n,) int64.
            window: images per window.
            tick: called between chunks, also when they are recomputed in the backward pass.

        Returns:
            (n,) float32, in the order of ``order``.
        """
        length = min(window, len(order))
        count = -(-len(order) // length)
        places = torch.arange(count * length, device=order.device) % len(order)
        windows = order[places].view(count, length)
        chunks = torch.split(windows, max(1, _CHUNK_IMAGES // length))

        def chunk_logits(rows: Tensor) -> Tensor:
            tick()
            out: Tensor = self(self._read(mixtures[rows].flatten(2)))
            return out

        if len(chunks) == 1 or not torch.is_grad_enabled():
            parts = [chunk_logits(rows) for rows in chunks]
        else:
            parts = [
                checkpoint(chunk_logits, rows, use_reentrant=False, preserve_rng_state=False)
                for rows in chunks
            ]
        return torch.cat(parts).flatten()[: len(order)]

    def _read(self, mixtures: Tensor) -> Tensor:
        return mixtures if self.published else mixtures.clamp(min=_FLOOR).log_()

    def save(self, path: Path) -> None:
        """Write weights and standardisation as safetensors; readers never see a partial file."""
        from safetensors.torch import save_file

        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
        state = {
            name: value.detach().cpu().contiguous() for name, value in self.state_dict().items()
        }
        save_file(state, partial)
        partial.replace(path)

    def load(self, path: Path) -> None:
        """Read what ``save`` wrote.

        Raises:
            PolicyFileError: the file is not safetensors, or its tensors do not fit this policy.
        """
        # Imported here: selectors must import with only torch and numpy installed.
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            state = load_file(path)
        except (OSError, SafetensorError) as error:
            raise PolicyFileError(f"{path} is not a readable safetensors file") from error
        for problem in _differences(self.state_dict(), state):
            raise PolicyFileError(f"{path} does not fit this pool and these options: {problem}")
        self.load_state_dict(state)


def _differences(expected: dict[str, Tensor], found: dict[str, Tensor]) -> Iterator[str]:
    for name, tensor in expected.items():
        if name not in found:
            yield f"the tensor {name} is missing"
        elif found[name].shape != tensor.shape:
            yield f"{name} is {tuple(found[name].shape)}, not {tuple(tensor.shape)}"
        elif not found[name].isfinite().all():
            yield f"{name} holds NaN or infinity"
    for name in found.keys() - expected.keys():
        yield f"the tensor {name} does not belong to a policy"
