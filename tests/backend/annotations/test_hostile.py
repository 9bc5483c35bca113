"""Whatever an annotation holds, it is read."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.annotated import LABELS, control_of, png_of

from cdal.backend.annotations import FORMATS, read_annotations
from cdal.backend.settings import ProjectSettings
from cdal.models.predictions import IGNORED

numbers = st.integers() | st.floats() | st.floats(-10, 110)
scalars = st.none() | st.booleans() | numbers | st.text(max_size=5) | st.sampled_from(LABELS)
json = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=12,
)
names = st.lists(st.sampled_from([*LABELS, "gone"]) | json, max_size=3)
bytes_ = st.lists(st.integers(-1, 256) | numbers, max_size=20) | st.binary(max_size=20).map(list)
PNG = png_of([[0, 255, 255], [0, 0, 255]])
pngs = st.tuples(st.integers(0, len(PNG)), st.text("AQgw/+=,", max_size=9)).map(
    lambda cut: PNG[: cut[0]] + cut[1] + PNG[cut[0] + len(cut[1]) :]
)
VALUES = {
    "x": numbers, "y": numbers, "width": numbers, "height": numbers, "rotation": numbers,
    "points": st.lists(st.lists(numbers, min_size=1, max_size=3), max_size=6), "rle": bytes_,
    "choices": names, "rectanglelabels": names, "brushlabels": names, "polygonlabels": names,
    "bitmasklabels": names, "imageDataURL": pngs,
}  # fmt: skip


def regions(tag: str) -> st.SearchStrategy[Any]:
    """Some values are nearly right, some far from it."""
    value = st.fixed_dictionaries({}, optional={k: v | json for k, v in VALUES.items()})
    close = st.fixed_dictionaries(
        {
            "from_name": st.just("what") | json,
            "type": st.just(tag.lower()) | json,
            "value": value | json,
        },
        optional={"original_width": st.integers(0, 5) | json, "original_height": st.just(3) | json},
    )
    return close | json


@pytest.mark.parametrize("name", [[], {}, ["what"], None])
@pytest.mark.parametrize("tag", FORMATS)
def test_a_control_whose_name_is_not_text_is_not_there(tag: str, name: Any) -> None:
    region = {"from_name": name, "type": tag.lower(), "value": {tag.lower(): [LABELS[0]]}}
    found = read_annotations(control_of(tag), [{"result": [region]}], ProjectSettings())
    assert len(found.left_out) == 1
    assert "of a control" in found.left_out[0]


@pytest.mark.parametrize("tag", FORMATS)
@given(data=st.data(), unlabelled=st.sampled_from(["background", "ignore"]))
@settings(max_examples=80)
def test_no_annotation_breaks_the_reader(tag: str, data: Any, unlabelled: Any) -> None:
    result = data.draw(st.lists(regions(tag), max_size=4) | json)
    control = control_of(tag)
    found = read_annotations(control, [{"result": result}], ProjectSettings(unlabelled=unlabelled))
    assert all(found.left_out)
    truth = found.truth
    if truth is None:
        return
    assert truth.digest()
    assert truth.classes <= set(LABELS)
    target = truth.target(7, 9)
    at_this_size, _ = truth.fit(7, 9)
    assert at_this_size is None or torch.equal(at_this_size, target)
    if control.task == "segmentation":
        assert target.shape == (7, 9)
        assert set(target.unique().tolist()) <= {0, 1, 2, 3, IGNORED}
    if control.task == "detection":
        assert target.shape[1] == 5
        left, top, right, bottom, _ = target.T
        assert ((left >= 0) & (left < right) & (right <= 9)).all()
        assert ((top >= 0) & (top < bottom) & (bottom <= 7)).all()
