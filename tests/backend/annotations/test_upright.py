"""Images rotated by EXIF: annotations and predictions lie where people see them."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import numpy.typing as npt
import pytest
import torch
from label_studio_sdk.converter.brush import mask2rle
from PIL import Image, ImageOps
from support.annotated import LABELS, control_of, png_of, predicted, read, region, segmentation

from cdal.backend.annotations import Region, rectangles
from cdal.backend.images.decode import decode
from cdal.backend.settings import ProjectSettings
from cdal.models import Detections, make_network

NETWORK = make_network("segmentation", classes=("a", "b"), image_size=64, pretrained=False)
STORED = (40, 72)
CAR = LABELS.index("car")


def turned(orientation: int) -> bytes:
    """A white picture, as stored, with a red block to the right of its upper left corner."""
    pixels = np.full((*STORED, 3), 255, np.uint8)
    pixels[4:12, 8:40] = (255, 0, 0)
    tags = Image.Exif()
    tags[0x0112] = orientation
    file = BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=95, subsampling=0, exif=tags)
    return file.getvalue()


def seen(data: bytes) -> npt.NDArray[np.bool_]:
    """Where a person sees the block, by another decoder."""
    with Image.open(BytesIO(data)) as image:
        pixels = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    block: npt.NDArray[np.bool_] = pixels[:, :, 1] < 128
    return block


def drawn(tag: str, block: npt.NDArray[np.bool_]) -> Region:
    """What that person draws around it."""
    height, width = block.shape
    rows, columns = np.flatnonzero(block.any(1)), np.flatnonzero(block.any(0))
    left, right = columns[0] * 100 / width, (columns[-1] + 1) * 100 / width
    top, bottom = rows[0] * 100 / height, (rows[-1] + 1) * 100 / height
    value = {
        "BrushLabels": {"format": "rle", "rle": mask2rle(block.astype(np.uint8) * 255)},
        "BitmaskLabels": {"imageDataURL": png_of(block.astype(np.uint8) * 255)},
        "PolygonLabels": {
            "points": [[left, top], [right, top], [right, bottom], [left, bottom]],
        },
        "RectangleLabels": {"x": left, "y": top, "width": right - left, "height": bottom - top},
    }[tag]
    return region(tag, {**value, tag.lower(): ["car"]}, (height, width))


def covered(tag: str, made: list[Region], size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """The part of the image that the regions cover."""
    target = read(tag, made).target(*size)
    if tag != "RectangleLabels":
        return np.asarray(target == CAR)
    (box,) = target.round().int().tolist()
    left, top, right, bottom, label = box
    assert label == CAR
    mask = np.zeros(size, np.bool_)
    mask[top:bottom, left:right] = True
    return mask


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    "tag", ["BrushLabels", "BitmaskLabels", "PolygonLabels", "RectangleLabels"]
)
def test_annotations_and_predictions_lie_where_people_see_them(tag: str, orientation: int) -> None:
    data = turned(orientation)
    block = seen(data)
    image = decode(data)
    size = height, width = image.shape[1], image.shape[2]
    assert size == (STORED if orientation < 5 else STORED[::-1])
    assert ((image[1] < 128).numpy() == block).all()
    assert (covered(tag, [drawn(tag, block)], size) == block).all()
    # What a network that makes no mistakes says of the image as it sees it.
    found = NETWORK.prepare(image)[1] < 128
    if tag == "RectangleLabels":
        rows, columns = found.any(1).nonzero().flatten(), found.any(0).nonzero().flatten()
        sides = torch.stack((columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)) / 64
        finding = Detections(sides[None], torch.tensor([CAR]), torch.tensor([0.9]))
        settings = ProjectSettings()
        made = rectangles.to_result(control_of(tag), LABELS, finding, size, settings)
    else:
        made = predicted(tag, segmentation(np.where(found, CAR, 3)), size)
    assert {(r["original_height"], r["original_width"]) for r in made} == {(height, width)}
    back = covered(tag, made, size)
    assert (back & block).sum() / (back | block).sum() > 0.8
