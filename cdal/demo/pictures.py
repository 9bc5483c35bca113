"""The images that the demo labels: drawn, or from a folder or zip of class folders."""

from __future__ import annotations

import random
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from cdal.demo.process import DemoError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".gif"})
TEST_SHARE = 0.25
"""Of the images of a source that has no test images of its own."""


@dataclass(frozen=True, slots=True)
class Picture:
    """An image file with its true class. Test images are never shown to Label Studio."""

    file: Path
    label: str
    is_test: bool


@dataclass(frozen=True, slots=True)
class _Member:
    name: str
    label: str
    is_test: bool


def copy_pictures(source: Path, folder: Path, limit: int | None, seed: int) -> list[Picture]:
    """Copy a random part of a source into a folder that Label Studio may serve.

    Args:
        source: a folder or zip with a folder a class, or with `train/CLASS` and `test/CLASS`.
        folder: where the copies go.
        limit: how many images to label, None for all; a third as many test images come with them.
        seed: of the choice.

    Raises:
        DemoError: there is no such source, or it holds no class folders with images.
    """
    if source.is_dir():
        names = (str(path.relative_to(source)) for path in sorted(source.rglob("*")))
        chosen = _choose(names, source, limit, seed)
        return [_place(folder, member, (source / member.name).read_bytes()) for member in chosen]
    if not source.is_file() or not zipfile.is_zipfile(source):
        raise DemoError(f"{source} is neither a folder nor a zip of class folders.")
    with zipfile.ZipFile(source) as archive:
        chosen = _choose(archive.namelist(), source, limit, seed)
        return [_place(folder, member, archive.read(member.name)) for member in chosen]


def known_pictures(folder: Path) -> list[Picture]:
    """The images of an earlier run."""
    return [
        Picture(file, file.parent.name, split == "test")
        for split in ("train", "test")
        for file in sorted((folder / split).glob("*/*"))
        if file.suffix.lower() in SUFFIXES
    ]


def _choose(names: Iterable[str], source: Path, limit: int | None, seed: int) -> list[_Member]:
    members = list(_members(names))
    if len({member.label for member in members}) < 2:
        raise DemoError(f"{source} has no two folders of images; it needs a folder a class.")
    shuffled = random.Random(seed)  # noqa: S311 — a draw of images, no secret
    shuffled.shuffle(members)
    if not any(member.is_test for member in members):
        tests = round(len(members) * TEST_SHARE)
        members = [_Member(m.name, m.label, row < tests) for row, m in enumerate(members)]
    to_label = [member for member in members if not member.is_test][:limit]
    test = [member for member in members if member.is_test][: max(1, len(to_label) // 3)]
    return to_label + test


def _members(names: Iterable[str]) -> Iterator[_Member]:
    for name in sorted(names):
        path = PurePosixPath(name)
        if path.suffix.lower() in SUFFIXES and len(path.parts) >= 2:
            yield _Member(name, path.parts[-2], "test" in path.parts[:-2])


def _place(folder: Path, member: _Member, data: bytes) -> Picture:
    """Write under a name of our own: a zip's names may point anywhere."""
    split = "test" if member.is_test else "train"
    name = PurePosixPath(member.name)
    file = folder / split / _plain(member.label) / _plain(name.name)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)
    return Picture(file, file.parent.name, member.is_test)


def _plain(text: str) -> str:
    kept = "".join(c if c.isalnum() or c in "-_. " else "_" for c in text).strip(". ")
    return kept or "_"
