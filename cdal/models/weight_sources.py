"""Where pretrained weights may come from: folders of this machine, and downloads if allowed."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, Self
from urllib.error import HTTPError
from urllib.parse import urlparse
from urllib.request import HTTPRedirectHandler, Request, build_opener

import torch

from cdal.durable import put_in_place
from cdal.models.errors import ModelError

BLOCK = 2**20
LARGEST = 2**31
"""Bytes of the largest file that is downloaded."""

TRY_AGAIN_AFTER = 1800.0
"""Seconds for which a host that did not answer is not asked again."""

_failed: dict[str, float] = {}
"""When a host last failed, by ``time.monotonic``."""


@dataclass(frozen=True, slots=True)
class WeightSources:
    """Where weights may come from, apart from the installed ones.

    Attributes:
        folder: the server's folder of weight files; None: there is none.
        downloads: whether missing weights may be downloaded.
        download_folder: where downloads are kept, and found again; None: ``folder``, or else
            torch's cache.
        patience: how long, in seconds, a server may be silent before a download is abandoned.
        time_limit: how long, in seconds, a whole download may take.
    """

    folder: Path | None = None
    downloads: bool = False
    download_folder: Path | None = None
    patience: float = 5.0
    time_limit: float = 120.0

    @property
    def kept(self) -> Path:
        """Where downloads are kept."""
        return self.download_folder or self.folder or torch_cache()

    def find(self, names: Iterable[str]) -> Iterator[Path]:
        """The files of these names, in the order in which the folders are preferred."""
        wanted = tuple(names)
        folders = (self.folder, self.download_folder, torch_cache())
        for folder in dict.fromkeys(one for one in folders if one is not None):
            yield from (folder / name for name in wanted if (folder / name).is_file())


@dataclass(frozen=True, slots=True)
class Origin:
    """What a network began from, for its manifest and for people.

    Attributes:
        name: of the weights, such as "ResNet18_Weights.IMAGENET1K_V1"; "random weights".
        source: the file, address or package that they came from; "" for random weights.
        sha256: hash of that file, or of a backbone's weights; "" for random weights.
        shortfall: why it did not begin from better weights, and what to do: sentences, or "".
    """

    name: str
    source: str = ""
    sha256: str = ""
    shortfall: str = ""

    @classmethod
    def from_json(cls, data: Any) -> Self:
        """Read what a manifest keeps of it.

        Raises:
            ModelError: it is not what ``dataclasses.asdict`` returns.
        """
        known = set(cls.__dataclass_fields__)
        if not isinstance(data, dict) or set(data) != known:
            raise ModelError("The manifest's origin is not readable.")
        if not all(isinstance(value, str) for value in data.values()):
            raise ModelError("The manifest's origin is not readable.")
        return cls(**data)


RANDOM = "random weights"


def torch_cache() -> Path:
    """Where torch keeps downloads; timm and torchvision use it, too."""
    return Path(torch.hub.get_dir()) / "checkpoints"


def file_digest(file: Path) -> str:
    """SHA-256 of a file: 64 hexadecimal digits."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def download(address: str, file: Path, sources: WeightSources) -> None:
    """Download a file; under its own name it is complete or does not exist.

    If its name ends in a hash, as torchvision's do, the content must have it. A host that cannot
    be reached, or is too slow, is left alone for a while, so that it does not hold up every job.

    Raises:
        OSError, ValueError: the file could not be downloaded, or is not the published one.
    """
    host = urlparse(address).netloc
    waits = _failed.get(host, -TRY_AGAIN_AFTER) + TRY_AGAIN_AFTER - time.monotonic()
    if waits > 0:
        minutes = 1 + int(waits // 60)
        raise TimeoutError(f"{host} failed a moment ago, and is asked again in {minutes} min")
    try:
        _download(address, file, sources)
    except HTTPError as error:  # the host answers
        error.close()
        raise
    except HTTPException as error:
        _failed[host] = time.monotonic()
        raise ValueError(f"{host} does not speak HTTP") from error
    except (OSError, ValueError):
        _failed[host] = time.monotonic()
        raise


def _download(address: str, file: Path, sources: WeightSources) -> None:
    if urlparse(address).scheme not in ("http", "https"):
        raise ValueError(f"{address} is not a web address")
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    ends = time.monotonic() + sources.time_limit
    digest = hashlib.sha256()
    with (
        _answer(address, sources.patience) as answer,
        tempfile.NamedTemporaryFile(dir=file.parent, prefix=f".{file.name}-") as unfinished,
    ):
        while block := answer.read1(BLOCK):
            unfinished.write(block)
            digest.update(block)
            if time.monotonic() > ends:
                raise TimeoutError(f"it took more than {sources.time_limit:g} s")
            if unfinished.tell() > LARGEST:
                raise ValueError(f"it is larger than {LARGEST >> 20} MiB")
        expected = answer.headers.get("Content-Length")
        if expected is not None and int(expected) != unfinished.tell():
            raise ValueError(f"only {unfinished.tell()} of {expected} bytes arrived")
        published = re.search(r"-([0-9a-f]{8,64})\.pth$", file.name)
        if published is not None and not digest.hexdigest().startswith(published[1]):
            raise ValueError("its checksum is not the published one")
        unfinished.flush()
        # A name of its own, or what a killed process left here would be in the way for ever.
        kept = Path(f"{unfinished.name}.complete")
        os.link(unfinished.name, kept)
    put_in_place(kept, file)


class _SafeRedirects(HTTPRedirectHandler):
    """Redirects that stay encrypted: what protects the content of a file is TLS."""

    def redirect_request(
        self, req: Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> Request | None:
        allowed = ("https",) if req.type == "https" else ("http", "https")
        if urlparse(newurl).scheme not in allowed:
            raise ValueError(f"{req.host} redirects to an address that is not encrypted")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _answer(address: str, patience: float) -> HTTPResponse:
    """The answer of a server, within this many seconds.

    A thread waits for it: a name that cannot be resolved, and a host with many addresses, would
    otherwise take several times as long.
    """
    found: SimpleQueue[HTTPResponse | OSError | ValueError | HTTPException] = SimpleQueue()

    def request() -> None:
        try:
            opener = build_opener(_SafeRedirects)
            found.put(opener.open(Request(address), timeout=patience))  # noqa: S310 — checked
        except (OSError, ValueError, HTTPException) as error:
            found.put(error)

    Thread(target=request, daemon=True).start()
    try:
        answer = found.get(timeout=2 * patience)
    except Empty:
        raise TimeoutError(f"timed out after {2 * patience:g} s") from None
    if isinstance(answer, Exception):
        raise answer
    return answer
