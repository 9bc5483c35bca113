from __future__ import annotations

import errno
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.colours import small_network

from cdal.models import (
    ClassificationNetwork,
    ModelError,
    checkpoint,
    load_network,
)

CPU = torch.device("cpu")


def saved(folder: Path) -> ClassificationNetwork:
    network = small_network()
    network.save(folder)
    return network


def test_a_loaded_network_predicts_the_same(tmp_path: Path) -> None:
    network = saved(tmp_path / "version")
    loaded = load_network(tmp_path / "version", CPU)
    assert loaded.manifest == network.manifest
    batch = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    assert torch.equal(loaded.predict(batch).probabilities, network.predict(batch).probabilities)


def test_only_its_files_remain(tmp_path: Path) -> None:
    saved(tmp_path / "a" / "version")
    names = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*"))
    files = ("manifest.json", "weights.safetensors", "weights.sha256")
    assert names == ["a", "a/version", *(f"a/version/{file}" for file in files)]


@pytest.mark.parametrize("name", ["weights.safetensors", "manifest.json", "weights.sha256"])
def test_a_flipped_bit_is_detected(tmp_path: Path, name: str) -> None:
    """In the manifest, too: a class under another name would be no label any more."""
    saved(tmp_path / "version")
    file = tmp_path / "version" / name
    content = bytearray(file.read_bytes())
    place = content.index(b"classes") + 17 if name == "manifest.json" else len(content) - 5
    content[place] ^= 1
    file.write_bytes(content)
    with pytest.raises(ModelError, match="checksum differs"):
        load_network(tmp_path / "version", CPU)
    (tmp_path / "version" / "weights.sha256").unlink()  # earlier versions wrote none
    load_network(tmp_path / "version", CPU)


def test_the_checksum_of_an_earlier_version_is_that_of_the_weights_alone(tmp_path: Path) -> None:
    saved(tmp_path / "version")
    digests = tmp_path / "version" / "weights.sha256"
    of_weights, of_manifest = digests.read_text().splitlines(keepends=True)
    digests.write_text(of_weights)
    load_network(tmp_path / "version", CPU)
    for text in ("", of_manifest, "no checksum at all"):
        digests.write_text(text)
        with pytest.raises(ModelError):
            load_network(tmp_path / "version", CPU)


def test_files_are_flushed_before_the_folder_is_renamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a power loss could leave a version with empty weights."""
    events: list[str] = []
    fsync, rename = os.fsync, Path.rename

    def note_fsync(descriptor: int) -> None:
        events.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        fsync(descriptor)

    def note_rename(path: Path, target: Path) -> Path:
        events.append("rename")
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(Path, "rename", note_rename)
    saved(tmp_path / "a" / "version")
    assert events[:3] == ["weights.safetensors", "manifest.json", "weights.sha256"]
    assert events[3].startswith(".version-")
    assert events[4:] == ["rename", "a"]


def test_the_fingerprint_is_saved_in_the_manifest(tmp_path: Path) -> None:
    network = small_network()
    network.save(tmp_path / "version", data_fingerprint="f" * 64)
    assert load_network(tmp_path / "version", CPU).manifest.data_fingerprint == "f" * 64


def test_an_existing_folder_is_never_overwritten(tmp_path: Path) -> None:
    network = saved(tmp_path / "version")
    with pytest.raises(ModelError, match="version already exists"):
        network.save(tmp_path / "version")


def test_a_failure_leaves_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(OSError, match="disk full"):
        small_network().save(tmp_path / "version")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["manifest.json", "weights.safetensors"])
def test_the_error_names_a_missing_file(tmp_path: Path, name: str) -> None:
    saved(tmp_path / "version")
    (tmp_path / "version" / name).unlink()
    with pytest.raises(ModelError, match=rf"{name}.* is missing\.$"):
        load_network(tmp_path / "version", CPU)


@pytest.mark.parametrize("content", [b"", b"not safetensors at all", b"\x80\x04K\x01."])
def test_damaged_weights_are_refused(tmp_path: Path, content: bytes) -> None:
    saved(tmp_path / "version")
    (tmp_path / "version" / "weights.safetensors").write_bytes(content)
    with pytest.raises(ModelError, match="does not hold a readable network"):
        load_network(tmp_path / "version", CPU)


@pytest.mark.parametrize(
    ("number", "found"),
    [(errno.EMFILE, OSError), (errno.ESTALE, OSError), (errno.EIO, ModelError)],
)
def test_what_says_nothing_of_the_files_is_no_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, found: type[Exception]
) -> None:
    saved(tmp_path / "version")

    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(checkpoint, "load_file", refuse)
    with pytest.raises(found, match=os.strerror(number)):
        load_network(tmp_path / "version", CPU)


@pytest.mark.parametrize(
    "changes",
    [{"classes": ["red", "green"]}, {"architecture": "mobilenet_v3_large"}],
)
def test_weights_that_do_not_fit_the_manifest_are_refused(
    tmp_path: Path, changes: dict[str, object]
) -> None:
    saved(tmp_path / "version")
    path = tmp_path / "version" / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    (tmp_path / "version" / "weights.sha256").unlink()
    with pytest.raises(ModelError, match="fit the manifest: "):
        load_network(tmp_path / "version", CPU)


@pytest.mark.parametrize(
    ("field", "known"), [("task", "segmentation"), ("architecture", "mobilenet_v3_small")]
)
def test_an_unknown_name_in_the_manifest_is_refused(tmp_path: Path, field: str, known: str) -> None:
    network = saved(tmp_path / "version")
    manifest = replace(network.manifest, **{field: "poetry"})
    (tmp_path / "version" / "manifest.json").write_text(manifest.to_json())
    (tmp_path / "version" / "weights.sha256").unlink()
    with pytest.raises(ModelError, match=rf'{field} "poetry".*{known}'):
        load_network(tmp_path / "version", CPU)
