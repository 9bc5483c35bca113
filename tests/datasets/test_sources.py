from __future__ import annotations

import threading
import zipfile
from pathlib import Path

import pytest
from support.drawn_files import make_folder, make_zip

from cdal.datasets import DatasetError
from cdal.datasets.sources import Source, open_source

FILES = {"b/2.txt": b"two", "b/1.txt": b"one", "a.txt": "ä".encode()}
LEFT_BEHIND = {"__MACOSX/b/1.txt": b"x", ".git/config": b"x", "b/.DS_Store": b"x"}


@pytest.fixture(params=["folder", "stored", "deflated"])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Source:
    files = FILES | LEFT_BEHIND
    if request.param == "folder":
        return open_source(make_folder(tmp_path / "source", files))
    kind = zipfile.ZIP_STORED if request.param == "stored" else zipfile.ZIP_DEFLATED
    return open_source(make_zip(tmp_path / "source.zip", files, kind))


def test_names_and_contents(source: Source) -> None:
    assert source.names == ["a.txt", "b/1.txt", "b/2.txt"]
    assert source.read("b/2.txt") == b"two"
    assert source.text("a.txt") == "ä"


def test_no_more_than_the_limit_is_read(source: Source) -> None:
    assert source.read("b/2.txt", limit=3) == b"two"
    with pytest.raises(DatasetError, match=r"^b/2\.txt in .* 2 bytes"):
        source.read("b/2.txt", limit=2)


def test_several_threads_may_read(source: Source) -> None:
    wrong: list[str] = []

    def read() -> None:
        wrong.extend(n for _ in range(50) for n in FILES if source.read(n) != FILES[n])

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize("name", ["../outside.txt", "/etc/hostname", "b/../../outside.txt"])
def test_a_zip_cannot_reach_other_files(tmp_path: Path, name: str) -> None:
    (tmp_path / "outside.txt").write_bytes(b"secret")
    (tmp_path / "in").mkdir()
    source = open_source(make_zip(tmp_path / "in" / "source.zip", {name: b"inside"}))
    # The name is harmless: it is only looked up inside the zip.
    assert [source.read(known) for known in source.names] in ([b"inside"], [])


def test_neither_folder_nor_zip(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("hello")
    for path in (tmp_path / "text", tmp_path / "missing"):
        with pytest.raises(DatasetError, match="is neither a folder nor a zip"):
            open_source(path)


def test_a_zip_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "source.zip", {"a.txt": b"hello"})
    whole, entry = path.read_bytes(), path.read_bytes().index(b"PK\1\2")
    for place, value in ((entry + 6, b"\xff"), (entry + 9, b"\x08")):  # its version; UTF-8 names
        damaged = bytearray(whole).replace(b"a.txt", b"\xff.txt")
        damaged[place : place + 1] = value
        path.write_bytes(damaged)
        with pytest.raises(DatasetError, match="damaged zip"):
            open_source(path)


def test_the_error_names_a_damaged_member(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "source.zip", {"a.txt": b"hello"})
    path.write_bytes(path.read_bytes().replace(b"hello", b"hallo"))
    with pytest.raises(DatasetError, match=r"a\.txt in .* cannot be read: Bad CRC"):
        open_source(path).read("a.txt")


def test_an_unsupported_compression_is_refused(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "source.zip", {"a.txt": b"hello"}, zipfile.ZIP_LZMA)
    with pytest.raises(DatasetError, match=r"a\.txt in .* unsupported compression"):
        open_source(path).read("a.txt")


def test_a_file_that_is_not_text(tmp_path: Path) -> None:
    source = open_source(make_folder(tmp_path, {"a.txt": b"\xff\xfe"}))
    with pytest.raises(DatasetError, match=r"a\.txt in .* is not UTF-8 text"):
        source.text("a.txt")
