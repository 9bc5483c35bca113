"""Sources of files: a folder, or a zip that is never unpacked."""

from __future__ import annotations

import threading
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from cdal.datasets.errors import DatasetError

MAX_FILES = 2_000_000
MAX_IMAGE_BYTES = 256 * 2**20
"""The maximum size of an image or mask file in bytes."""
MAX_TEXT_BYTES = 16 * 2**20
"""The maximum size of any other file in bytes."""


class Source(ABC):
    """Files by name, which several threads may read at once.

    Only names in ``names`` are valid, so the name of a zip's member never becomes a path.

    Attributes:
        path: the folder or zip.
        names: the sorted names of all files, relative to the folder or zip, with "/".
    """

    def __init__(self, path: Path, names: Iterable[str]) -> None:
        self.path = path
        self.names: Sequence[str] = sorted(name for name in names if not _is_hidden(name))
        if len(self.names) > MAX_FILES:
            raise DatasetError(f"{path} contains more than {MAX_FILES:,} files.")

    @abstractmethod
    def read(self, name: str, limit: int = MAX_IMAGE_BYTES) -> bytes:
        """Read one of the files.

        Raises:
            DatasetError: the file is larger than ``limit`` bytes, or cannot be read.
        """

    def where(self, name: str) -> str:
        """The name of one of the files within a sentence."""
        return f"{name} in {self.path}"

    def text(self, name: str) -> str:
        """Read a text file in UTF-8.

        Raises:
            DatasetError: the file is not UTF-8, larger than ``MAX_TEXT_BYTES``, or cannot be read.
        """
        try:
            return self.read(name, MAX_TEXT_BYTES).decode("utf-8-sig")
        except UnicodeDecodeError:
            raise DatasetError(f"{self.where(name)} is not UTF-8 text.") from None

    def _too_large(self, name: str, limit: int) -> DatasetError:
        return DatasetError(f"{self.where(name)} is larger than {limit:,} bytes.")


class Folder(Source):
    """A folder, including its subfolders."""

    def __init__(self, path: Path) -> None:
        files = (file for file in path.rglob("*") if file.is_file())
        super().__init__(path, (file.relative_to(path).as_posix() for file in files))

    def read(self, name: str, limit: int = MAX_IMAGE_BYTES) -> bytes:
        try:
            with (self.path / name).open("rb") as file:
                data = file.read(limit + 1)
        except OSError as error:
            raise DatasetError(f"{self.where(name)} cannot be read: {error.strerror}.") from error
        if len(data) > limit:
            raise self._too_large(name, limit)
        return data


class Zip(Source):
    """The stored or deflated members of a zip, which stays open while it is in use."""

    def __init__(self, path: Path) -> None:
        try:
            self._archive = zipfile.ZipFile(path)
        except Exception as error:  # as in read
            raise DatasetError(f"{path} is a damaged zip or cannot be read: {error}.") from error
        self._members = {m.filename: m for m in self._archive.infolist() if not m.is_dir()}
        self._lock = threading.Lock()
        super().__init__(path, self._members)

    def read(self, name: str, limit: int = MAX_IMAGE_BYTES) -> bytes:
        member = self._members[name]
        # zipfile never unpacks more than the declared size.
        if member.file_size > limit:
            raise self._too_large(name, limit)
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise DatasetError(
                f"{self.where(name)} uses an unsupported compression; create the zip again, "
                "stored or deflated."
            )
        try:
            with self._lock:
                return self._archive.read(member)
        except Exception as error:  # zipfile does not document what it raises for damage
            raise DatasetError(f"{self.where(name)} cannot be read: {error}.") from error


def open_source(path: Path) -> Source:
    """Open a folder or zip.

    Raises:
        DatasetError: the path is neither, or cannot be read.
    """
    if path.is_dir():
        return Folder(path)
    if path.is_file() and zipfile.is_zipfile(path):
        return Zip(path)
    raise DatasetError(f"{path} is neither a folder nor a zip file.")


def _is_hidden(name: str) -> bool:
    """Whether a file was left behind by a file manager or version control."""
    return any(part == "__MACOSX" or part[0] == "." for part in PurePosixPath(name).parts)
