"""Small data sets of drawn images, as folders and zips."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image


def picture(width: int, height: int, kind: str = "PNG", orientation: int = 1) -> bytes:
    """An image whose top left pixel is red; all others are blue."""
    image = Image.new("RGB", (width, height), (0, 0, 255))
    image.putpixel((0, 0), (255, 0, 0))
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(image, kind, exif=exif)


def mask(rows: list[list[int]]) -> bytes:
    return encoded(Image.fromarray(np.array(rows, np.uint8)), "PNG")


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def annotation(*objects: tuple[str, int, int, int, int]) -> bytes:
    return "".join(
        [
            "<annotation><size><width>1</width><height>1</height></size>",
            *(
                f"<object><name>{name}</name><bndbox><xmin>{left}</xmin><ymin>{top}</ymin>"
                f"<xmax>{right}</xmax><ymax>{bottom}</ymax></bndbox></object>"
                for name, left, top, right, bottom in objects
            ),
            "</annotation>",
        ]
    ).encode()


def make_folder(folder: Path, files: Mapping[str, bytes]) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def make_zip(file: Path, files: Mapping[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return file
