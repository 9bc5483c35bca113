"""The device that a network runs on, and what fits into its memory."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from statistics import median
from threading import Thread

import torch

from cdal.models.architecture import Defaults
from cdal.models.errors import ModelError


def choose_device(name: str = "auto") -> torch.device:
    """The device of this name: "auto" (CUDA if available), "cpu", "cuda" or "cuda:N".

    Raises:
        ModelError: the device does not exist.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise ModelError(f'The device "{name}" is not one of auto, cpu, cuda and cuda:N.')
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise ModelError(f'The device "{name}" does not exist: torch finds {count} CUDA devices.')
    return device


def training_batch_size(device: torch.device, image_size: int, defaults: Defaults) -> int:
    """Images per training step: few, because small data sets need many steps."""
    cpu, cuda = defaults.batch_size
    return cpu if device.type == "cpu" else min(cuda, _fitting(device, image_size, defaults))


def prediction_batch_size(device: torch.device, image_size: int, defaults: Defaults) -> int:
    """Images per prediction batch: more than for training, as no activations are kept."""
    if device.type == "cpu":
        return defaults.prediction_batch
    return min(1024, 4 * _fitting(device, image_size, defaults))


def _fitting(device: torch.device, image_size: int, defaults: Defaults) -> int:
    """The number of images, a power of two, that train in a quarter of the device's memory."""
    memory = torch.cuda.get_device_properties(device).total_memory
    images = memory // 4 // (defaults.bytes_per_pixel * image_size**2)
    return 1 << max(1, int(images).bit_length() - 1)


def choose_image_size(
    sizes: Sequence[tuple[int, int]], device: torch.device, defaults: Defaults
) -> int:
    """The side S, in pixels, to which a project's images are resized.

    It is the median of the images' geometric mean sides, rounded to a multiple of 32 (the stride
    of all our networks), at least 32, and at most the task's largest side, because time grows with
    the area.

    Args:
        sizes: height and width of some of the images.
        device: where the network will run.
        defaults: the task's defaults.
    """
    largest = defaults.max_side[0 if device.type == "cpu" else 1]
    if not sizes:
        return largest
    side: float = median(math.sqrt(height * width) for height, width in sizes)
    return min(largest, max(32, 32 * round(side / 32)))


def free_memory() -> None:
    """Return cached memory to the system, where another process may need it.

    torch caches GPU memory, and glibc caches freed main memory: 120 MiB after training a small
    network.
    """
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)


@contextmanager
def one_core_spared() -> Iterator[None]:
    """Compute with one thread fewer within the block, if there are several.

    The steps of a head are so short that its threads mostly wait for each other, and all of them
    for the one whose core something else uses, such as Label Studio; docs/training.md has figures.
    """
    threads = torch.get_num_threads()
    _use_threads(max(1, threads - 1), threads)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _use_threads(own: int, others: int) -> None:
    """Compute with so many threads in this thread, and with so many in those that begin later."""
    torch.set_num_threads(own)
    # Torch remembers the number that was set last for threads that have not computed yet.
    setting = Thread(target=torch.set_num_threads, args=(others,))
    setting.start()
    setting.join()


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch's default generators within the block and restore them afterwards.

    Weight initialisation and dropout accept no generator, so they need this. The default generators
    belong to the process: if another thread draws from them at the same time, both still get random
    numbers, but not the same ones in every run.
    """
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield
