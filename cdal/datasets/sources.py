"""Where files are read from: a folder, or a zip that is never unpacked."""

from __future__ import annotations

import threading
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from cdal.datasets.errors import DatasetError

MOST_FILES = 2_000_000
LARGEST_IMAGE = 256 * 2**20
"""Bytes of an image file or a mask."""
LARGEST_TEXT = 16 * 2**20
"""Bytes of any other file."""


class Source(ABC):
    """Files by name. It may be read from several threads at once.

    A name is only ever looked up among ``names``, so what a zip calls its members never becomes
    a path.

    Attributes:
        path: of the folder or zip.
        names: of all files, relative to the folder or inside the zip, with "/", sorted.
    """

    def __init__(self, path: Path, names: Iterable[str]) -> None:
        self.path = path
        self.names: Sequence[str] = sorted(name for name in names if not _is_hidden(name))
        if len(self.names) > MOST_FILES:
            raise DatasetError(f"{path} holds more than {MOST_FILES:,} files.")

    @abstractmethod
    def read(self, name: str, limit: int = LARGEST_IMAGE) -> bytes:
        """All bytes of one of the files.

        Raises:
            DatasetError: it is larger than the limit, or cannot be read.
        """

    def where(self, name: str) -> str:
        """What to call one of the files in a sentence."""
        return f"{name} in {self.path}"

    def text(self, name: str) -> str:
        """A text file in UTF-8.

        Raises:
            DatasetError: it is none, larger than ``LARGEST_TEXT``, or cannot be read.
        """
        try:
            return self.read(name, LARGEST_TEXT).decode("utf-8-sig")
        except UnicodeDecodeError:
            raise DatasetError(f"{self.where(name)} is not a text in UTF-8.") from None

    def _too_large(self, name: str, limit: int) -> DatasetError:
        return DatasetError(f"{self.where(name)} has more than {limit:,} bytes.")


class Folder(Source):
    """A folder and all that is below it."""

    def __init__(self, path: Path) -> None:
        files = (file for file in path.rglob("*") if file.is_file())
        super().__init__(path, (file.relative_to(path).as_posix() for file in files))

    def read(self, name: str, limit: int = LARGEST_IMAGE) -> bytes:
        try:
            with (self.path / name).open("rb") as file:
                data = file.read(limit + 1)
        except OSError as error:
            raise DatasetError(f"{self.where(name)} cannot be read: {error.strerror}.") from error
        if len(data) > limit:
            raise self._too_large(name, limit)
        return data


class Zip(Source):
    """The members of a zip, stored or deflated; the file stays open as long as this is used."""

    def __init__(self, path: Path) -> None:
        try:
            self._archive = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError) as error:
            raise DatasetError(f"{path} is a damaged zip, or cannot be read: {error}.") from error
        self._members = {m.filename: m for m in self._archive.infolist() if not m.is_dir()}
        self._lock = threading.Lock()
        super().__init__(path, self._members)

    def read(self, name: str, limit: int = LARGEST_IMAGE) -> bytes:
        member = self._members[name]
        # No more than this is unpacked, whatever is in the zip.
        if member.file_size > limit:
            raise self._too_large(name, limit)
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise DatasetError(
                f"{self.where(name)} is packed in a rare way; make the zip anew, stored or "
                "deflated."
            )
        try:
            with self._lock:
                return self._archive.read(member)
        except Exception as error:  # what zipfile raises on damaged members is not documented
            raise DatasetError(f"{self.where(name)} cannot be read: {error}.") from error


def open_source(path: Path) -> Source:
    """The files of a folder or zip.

    Raises:
        DatasetError: it is neither, or cannot be read.
    """
    if path.is_dir():
        return Folder(path)
    if path.is_file() and zipfile.is_zipfile(path):
        return Zip(path)
    raise DatasetError(f"{path} is neither a folder nor a zip.")


def _is_hidden(name: str) -> bool:
    """Whether it is what file managers and version control leave behind."""
    return any(part == "__MACOSX" or part[0] == "." for part in PurePosixPath(name).parts)
