"""Labelled images in the standard layouts, read lazily from a folder or a zip."""

from cdal.datasets.errors import DatasetError
from cdal.datasets.image_set import Example, ImageSet
from cdal.datasets.labelled_images import LabelledImages
from cdal.datasets.layouts import TASKS, open_images
from cdal.datasets.pixels import decode, upright_size

__all__ = [
    "TASKS",
    "DatasetError",
    "Example",
    "ImageSet",
    "LabelledImages",
    "decode",
    "open_images",
    "upright_size",
]
