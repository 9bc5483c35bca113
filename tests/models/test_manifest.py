from __future__ import annotations

import hashlib
import json
import platform
from typing import Any

import pytest

from cdal.models import Manifest, ModelError, Recipe, fingerprint


def manifest(**changes: Any) -> Manifest:
    settings: dict[str, Any] = {
        "task": "classification",
        "architecture": "resnet18",
        "classes": ("cat", "Hündin"),
        "image_size": 64,
        "seed": 3,
        "pretrained": False,
    }
    return Manifest(**(settings | changes))


def test_json_round_trip() -> None:
    written = manifest(data_fingerprint="abc")
    assert Manifest.from_json(written.to_json()) == written
    assert json.loads(written.to_json())["classes"] == ["cat", "Hündin"]


def test_records_versions() -> None:
    assert manifest().versions["python"] == platform.python_version()
    assert set(manifest().versions) == {"python", "torch", "torchvision"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes": ()}, "at least one class"),
        ({"classes": ("a", "b", "a")}, "repeated: a\\."),
        ({"image_size": 16}, "image_size must be at least 32; it is 16"),
    ],
)
def test_refuses(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        manifest(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 2}, "format 2; .*format 1"),
        ({"format": "1"}, "format '1'; .*format 1"),
        ({"image_size": "64"}, "image_size cannot be '64'"),
        ({"image_size": True}, "image_size cannot be True"),
        ({"classes": "cat"}, "classes cannot be 'cat'"),
        ({"classes": ["cat", 1]}, r"classes cannot be \['cat', 1\]"),
        ({"mean": [0.5, 0.5]}, r"mean cannot be \[0\.5, 0\.5\]"),
        ({"colour": "red"}, r"unknown: colour\."),
    ],
)
def test_refuses_to_read(changes: dict[str, Any], message: str) -> None:
    text = json.dumps(json.loads(manifest().to_json()) | changes)
    with pytest.raises(ModelError, match=message):
        Manifest.from_json(text)


@pytest.mark.parametrize("text", ["", "[]", "{}", "null"])
def test_refuses_anything_but_a_manifest(text: str) -> None:
    with pytest.raises(ModelError, match=r"^The manifest is not "):
        Manifest.from_json(text)


def test_refuses_a_missing_field() -> None:
    content = json.loads(manifest().to_json())
    del content["seed"]
    with pytest.raises(ModelError, match=r"missing or unknown: seed\."):
        Manifest.from_json(json.dumps(content))


class TestFingerprint:
    def test_is_the_hash_of_plain_json(self) -> None:
        recipe = (
            '{"augmentation":true,"batch_size":null,"class_weights":true,"epochs":5,'
            '"label_smoothing":null,"learning_rate":null,"mixed_precision":null,'
            '"seed":7,"warmup":0.1,"weight_decay":0.05}'
        )
        text = f'[1,[["1","a"],["2","b"]],{recipe},"resnet18",["a","b"]]'
        assert (
            fingerprint([1, 2], ["a", "b"], Recipe(epochs=5, seed=7), "resnet18", ["a", "b"])
            == hashlib.sha256(text.encode()).hexdigest()
        )

    def test_does_not_depend_on_the_order_of_the_images(self) -> None:
        assert fingerprint([1, 2], ["a", "b"], Recipe(), "r", ["a", "b"]) == fingerprint(
            [2, 1], ["b", "a"], Recipe(), "r", ["a", "b"]
        )

    def test_depends_on_everything_else(self) -> None:
        prints = {
            fingerprint([1, 2], ["a", "b"], Recipe(), "r", ["a", "b"]),
            fingerprint([1, 3], ["a", "b"], Recipe(), "r", ["a", "b"]),
            fingerprint([1, 2], ["b", "a"], Recipe(), "r", ["a", "b"]),
            fingerprint([1, 2], ["a", "b"], Recipe(seed=1), "r", ["a", "b"]),
            fingerprint([1, 2], ["a", "b"], Recipe(), "s", ["a", "b"]),
            fingerprint([1, 2], ["a", "b"], Recipe(), "r", ["b", "a"]),
            fingerprint([1], ["a"], Recipe(), "r", ["a", "b"]),
        }
        assert len(prints) == 7

    def test_needs_one_label_per_image(self) -> None:
        with pytest.raises(ValueError, match="zip"):
            fingerprint([1, 2], ["a"], Recipe(), "r", ["a"])
