from __future__ import annotations

from pathlib import Path

import pytest
from support.drawn_files import annotation, make_folder, mask, picture

from cdal.datasets import TASKS, DatasetError, open_images

LAYOUTS = {
    "classification": {f"{label}/{n}.png": picture(1, 1) for label in "ab" for n in range(4)},
    "segmentation": {
        "classes.txt": b"a",
        "train/images/1.png": picture(1, 1),
        "train/masks/1.png": mask([[0]]),
    },
    "detection": {
        "JPEGImages/1.jpg": picture(4, 4, "JPEG"),
        "Annotations/1.xml": annotation(("a", 1, 1, 2, 2)),
    },
}


@pytest.mark.parametrize("task", TASKS)
def test_each_task_has_its_layout(tmp_path: Path, task: str) -> None:
    folder = make_folder(tmp_path, LAYOUTS[task])
    assert open_images(folder).task == open_images(folder, task).task == task


@pytest.mark.parametrize(
    ("held", "requested", "message"),
    [
        ("classification", "detection", "class folders, .* for classification; "
         r"detection needs JPEGImages/NAME\.jpg with Annotations/NAME\.xml"),
        ("segmentation", "classification", "images with masks, .* for segmentation; "
         "classification needs one folder of images per class"),
        ("detection", "segmentation", "VOC's layout, .* for detection; "
         r"segmentation needs COCO.*, or train/images/NAME\.jpg with train/masks/NAME\.png"),
    ],
)  # fmt: skip
def test_another_task_is_refused(tmp_path: Path, held: str, requested: str, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        open_images(make_folder(tmp_path, LAYOUTS[held]), requested)


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ([], "contains no files"),
        (["1.png", "2.png"], r"contains 2 files, such as 1\.png"),
        (["a/1.txt", "b/2.txt"], "contains 2 files in a, b"),
        (["train/1.png", "test/2.png"], "contains 2 files in test, train"),
        ([f"{n}/1.txt" for n in range(9)], "contains 9 files in 0, 1, 2, 3, …"),
    ],
)
def test_files_in_no_layout_are_refused_with_what_is_needed(
    tmp_path: Path, files: list[str], found: str
) -> None:
    folder = make_folder(tmp_path, dict.fromkeys(files, b""))
    with pytest.raises(DatasetError, match=found) as caught:
        open_images(folder)
    assert all(f"({task})" in str(caught.value) for task in TASKS)
    with pytest.raises(DatasetError, match=found) as caught:
        open_images(folder, "detection")
    assert "(detection)" in str(caught.value)
    assert "(segmentation)" not in str(caught.value)
