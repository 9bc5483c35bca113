"""What is written beside an exported network: all that is needed to feed and read it, as JSON."""

from __future__ import annotations

from typing import Any

from cdal.export.layers import Exported
from cdal.models import TaskNetwork
from cdal.models.letterbox import GRID

FORMAT = 1
INPUT = "images"


def describe(
    network: TaskNetwork, exported: Exported, file_format: str, score_threshold: float
) -> dict[str, Any]:
    """The content of ``model.json``.

    Args:
        network: what is exported.
        exported: the same as one module.
        file_format: a key of ``FORMATS``.
        score_threshold: the confidence from which people are shown what it finds.
    """
    manifest = network.manifest
    sides = ["H", "W"] if exported.fits else [manifest.image_size] * 2
    return {
        "format": FORMAT,
        "file_format": file_format,
        "task": manifest.task,
        "network": manifest.architecture,
        "labels": list(manifest.classes),
        "input": {
            "name": INPUT,
            "shape": ["N" if exported.takes_several else 1, 3, *sides],
            "type": "float32",
            "colours": "RGB",
            "size": manifest.image_size,
            # "fit": the longer side becomes `size`, and both are padded at the bottom and the right
            # with 0, after the normalisation, to a multiple of `multiple`. "scale": the same, but
            # both sides become `scale` times as long.
            **_resizing(exported),
            "multiple": GRID if exported.fits else manifest.image_size,
            "mean": list(manifest.mean),
            "std": list(manifest.std),
        },
        "outputs": {name: list(axes) for name, axes in exported.outputs.items()},
        "thresholds": {"score": score_threshold},
    }


def _resizing(exported: Exported) -> dict[str, Any]:
    tiling = exported.tiling
    if tiling is not None:
        return {"resize": "scale", "scale": tiling.side / tiling.tile}
    return {"resize": "fit" if exported.fits else "stretch"}
