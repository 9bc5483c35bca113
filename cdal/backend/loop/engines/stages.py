"""What runs on the nodes of a cluster: fetching images on CPUs, and networks on GPUs.

Each node has this package installed. Neither stage writes anything that outlives it.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from cdal.allocator import keep_freed_memory
from cdal.backend.addresses import AllowedHosts
from cdal.backend.errors import ImageError
from cdal.backend.images.inputs import Inputs
from cdal.backend.images.store import ImageFile, ImageSource, ImageStore
from cdal.backend.loop.inference import Scored, score_images
from cdal.mixture_kind import MixtureKind
from cdal.models import TaskNetwork, WeightSources, choose_device, load_network
from cdal.models.head import HeadNetwork
from cdal.models.shards import KEY_BYTES

Items = Sequence[tuple[int, object]]
"""For each image, its task and the image in the task's data."""


@dataclass(frozen=True, slots=True)
class PackedNetwork:
    """A network's files, to be loaded on another machine.

    Attributes:
        files: by name, as `TaskNetwork.save` writes them.
        sources: where that machine may find the backbone's weights, which are not among them.
    """

    files: Mapping[str, bytes]
    sources: WeightSources

    @classmethod
    def of(cls, network: TaskNetwork, sources: WeightSources) -> PackedNetwork:
        """Pack a network."""
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name) / "network"
            network.save(folder)
            files = {file.name: file.read_bytes() for file in folder.iterdir()}
        return cls(files, sources)

    def load(self, device: torch.device) -> TaskNetwork:
        """Load it.

        Raises:
            ModelError: it cannot be loaded, as where its backbone's weights are not available.
        """
        with tempfile.TemporaryDirectory() as name:
            for file, content in self.files.items():
                (Path(name) / file).write_bytes(content)
            return load_network(Path(name), device, sources=self.sources)


@dataclass(frozen=True, slots=True)
class Fetching:
    """How images are fetched; it holds a secret.

    Attributes:
        url: Label Studio's address.
        token: for Label Studio.
        public_url: see `ImageSource`.
        image_hosts: from which images may be fetched besides.
    """

    url: str
    token: str
    public_url: str | None
    image_hosts: str

    def __repr__(self) -> str:
        return f"Fetching({self.url})"


@dataclass(frozen=True, slots=True)
class Fetched:
    """Images of which some could be prepared.

    Attributes:
        ids: the tasks of those.
        contents: hashes of their files.
        sizes: their original heights and widths.
        pixels: prepared, each (3, h, w) uint8.
        problems: task, reason, and whether it passes, of the others.
    """

    ids: Sequence[int]
    contents: Sequence[bytes]
    sizes: Sequence[tuple[int, int]]
    pixels: Sequence[Tensor]
    problems: Sequence[tuple[int, str, bool]]


@dataclass(frozen=True, slots=True)
class Seen:
    """What a network made of fetched images.

    Attributes:
        problems: see `Fetched`.
        inputs: the images that the network has seen; their features if it is a head, no pixels.
        scored: their scores, unless only features were wanted.
    """

    problems: Sequence[tuple[int, str, bool]]
    inputs: Sequence[Inputs]
    scored: Sequence[Scored]


def packed_items(items: Items) -> str:
    """Items as text."""
    return json.dumps(items)


class Fetcher:
    """Fetches and prepares images by the same code, and so the same checks, as a worker.

    Args:
        how: they are fetched.
        packed: the network that they are prepared for; it runs elsewhere.
    """

    def __init__(self, how: Fetching, packed: PackedNetwork) -> None:
        self._how = how
        self._packed = packed

    @cached_property
    def _network(self) -> TaskNetwork:
        return self._packed.load(torch.device("cpu"))

    @cached_property
    def _source(self) -> ImageSource:
        # Only nodes that fetch load it: it takes a second and a half.
        from cdal.backend.label_studio.client import LabelStudioClient

        how = self._how
        client = LabelStudioClient(how.url, how.token, project=0)
        return ImageSource(how.url, client.authorization, how.public_url)

    @cached_property
    def _images(self) -> ImageStore:
        folder = Path(tempfile.mkdtemp(prefix="cdal-"))
        return ImageStore(folder / "images", 0, AllowedHosts.parse(self._how.image_hosts))

    def __call__(self, items: str) -> Fetched:
        network = self._network  # once, and not by each of the threads that prepare
        problems: list[tuple[int, str, bool]] = []
        ready: list[tuple[int, bytes, tuple[int, int], Tensor]] = []
        values: Items = [(task_id, value) for task_id, value in json.loads(items)]

        def prepare(file: ImageFile) -> tuple[bytes, tuple[int, int], Tensor]:
            size, pixels = file.prepared(
                lambda image: ((image.shape[1], image.shape[2]), network.prepare(image))
            )
            return file.digest[:KEY_BYTES], size, pixels

        for task_id, found in self._images.stream_files(self._source, values, prepare):
            if isinstance(found, ImageError):
                problems.append((task_id, found.reason, found.passes))
            else:
                ready.append((task_id, *found))
        ids, contents, sizes, pixels = zip(*ready, strict=True) if ready else ((), (), (), ())
        return Fetched(ids, contents, sizes, pixels, problems)


class Onlooker:
    """Shows prepared images to a network.

    Args:
        packed: the network.
        device: where it runs.
        kind: of the class mixtures; None: only features are wanted.
    """

    def __init__(self, packed: PackedNetwork, device: str, kind: MixtureKind | None) -> None:
        self._packed = packed
        self._device = device
        self._kind = kind

    @cached_property
    def _network(self) -> TaskNetwork:
        keep_freed_memory()  # as a worker does; this process does nothing else
        return self._packed.load(choose_device(self._device))

    def __call__(self, fetched: Fetched) -> Seen:
        network, kind = self._network, self._kind
        # The same batches as a worker's, so that every bit of the results is the same, too.
        size = network.prediction_batch_size
        starts = range(0, len(fetched.ids), size)
        batches = [_inputs(network, fetched, slice(start, start + size)) for start in starts]
        scored = [] if kind is None else list(score_images(network, batches, kind))
        return Seen(fetched.problems, batches if isinstance(network, HeadNetwork) else [], scored)


def _inputs(network: TaskNetwork, fetched: Fetched, some: slice) -> Inputs:
    pixels = fetched.pixels[some]
    return Inputs(
        fetched.ids[some],
        fetched.contents[some],
        fetched.sizes[some],
        network.look(pixels) if isinstance(network, HeadNetwork) else torch.stack(list(pixels)),
    )
