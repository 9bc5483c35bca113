from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.colours import small_network
from torchvision.models import mobilenet_v3_small, resnet18

from cdal.models import (
    ClassificationNetwork,
    ModelError,
    TaskNetwork,
    checkpoint,
    load_network,
    make_network,
)

CPU = torch.device("cpu")


def saved(folder: Path) -> ClassificationNetwork:
    network = small_network()
    network.save(folder)
    return network


def test_what_is_loaded_predicts_the_same(tmp_path: Path) -> None:
    network = saved(tmp_path / "version")
    loaded = load_network(tmp_path / "version", CPU)
    assert loaded.manifest == network.manifest
    batch = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    assert torch.equal(loaded.predict(batch).probabilities, network.predict(batch).probabilities)


def test_nothing_but_its_files_is_left(tmp_path: Path) -> None:
    saved(tmp_path / "a" / "version")
    names = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*"))
    files = ("manifest.json", "weights.safetensors", "weights.sha256")
    assert names == ["a", "a/version", *(f"a/version/{file}" for file in files)]


def test_a_bit_that_flipped_is_noticed(tmp_path: Path) -> None:
    saved(tmp_path / "version")
    weights = tmp_path / "version" / "weights.safetensors"
    content = bytearray(weights.read_bytes())
    content[-5] ^= 1
    weights.write_bytes(content)
    with pytest.raises(ModelError, match="its checksum differs"):
        load_network(tmp_path / "version", CPU)
    (tmp_path / "version" / "weights.sha256").unlink()  # as in folders of earlier versions
    load_network(tmp_path / "version", CPU)


def test_the_files_are_on_the_disk_before_their_name_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or a power loss would leave a version whose weights are empty."""
    happened: list[str] = []
    fsync, rename = os.fsync, Path.rename

    def note_fsync(descriptor: int) -> None:
        happened.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        fsync(descriptor)

    def note_rename(path: Path, target: Path) -> Path:
        happened.append("rename")
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(Path, "rename", note_rename)
    saved(tmp_path / "a" / "version")
    assert happened[:3] == ["weights.safetensors", "manifest.json", "weights.sha256"]
    assert happened[3].startswith(".version-")
    assert happened[4:] == ["rename", "a"]


def test_the_fingerprint_goes_into_the_manifest(tmp_path: Path) -> None:
    network = small_network()
    network.save(tmp_path / "version", data_fingerprint="f" * 64)
    assert load_network(tmp_path / "version", CPU).manifest.data_fingerprint == "f" * 64


def test_never_overwrites(tmp_path: Path) -> None:
    network = saved(tmp_path / "version")
    with pytest.raises(ModelError, match="exists; a network is saved to a new folder"):
        network.save(tmp_path / "version")


def test_a_failure_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(OSError, match="disk full"):
        small_network().save(tmp_path / "version")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["manifest.json", "weights.safetensors"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
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
    "changes",
    [{"classes": ["red", "green"]}, {"architecture": "mobilenet_v3_large"}],
)
def test_weights_that_do_not_fit_the_manifest_are_refused(
    tmp_path: Path, changes: dict[str, object]
) -> None:
    saved(tmp_path / "version")
    path = tmp_path / "version" / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(ModelError, match=r"^The weights don't fit the manifest: "):
        load_network(tmp_path / "version", CPU)


@pytest.mark.parametrize(
    ("field", "sentence"),
    [
        ("task", 'The task "poetry" is not one of classification, segmentation, detection.'),
        (
            "architecture",
            'The architecture "poetry" is not one of mobilenet_v3_small, mobilenet_v3_large, '
            "resnet18, resnet50, vgg16.",
        ),
    ],
)
def test_an_unknown_name_in_the_manifest_is_refused(
    tmp_path: Path, field: str, sentence: str
) -> None:
    network = saved(tmp_path / "version")
    manifest = replace(network.manifest, **{field: "poetry"})
    (tmp_path / "version" / "manifest.json").write_text(manifest.to_json())
    with pytest.raises(ModelError) as error:
        load_network(tmp_path / "version", CPU)
    assert str(error.value) == sentence


class TestOwnWeights:
    """A file that the user brings."""

    @pytest.fixture
    def published(self) -> dict[str, torch.Tensor]:
        """A network as torchvision has it, with another number of classes."""
        with torch.random.fork_rng():
            torch.manual_seed(11)
            weights: dict[str, torch.Tensor] = mobilenet_v3_small(num_classes=7).state_dict()
        return weights

    def make(self, file: Path) -> TaskNetwork:
        return make_network(
            architecture="mobilenet_v3_small", classes=("a", "b"), image_size=32, weights_file=file
        )

    @pytest.mark.parametrize("wrap", [None, "state_dict", "model", "model_state_dict"])
    @pytest.mark.parametrize("prefix", ["", "module."])
    def test_a_state_dict(
        self,
        published: dict[str, torch.Tensor],
        tmp_path: Path,
        wrap: str | None,
        prefix: str,
    ) -> None:
        weights = {prefix + name: tensor for name, tensor in published.items()}
        torch.save({wrap: weights, "epoch": 3} if wrap else weights, tmp_path / "own.pth")
        network = self.make(tmp_path / "own.pth")
        assert network.manifest.pretrained
        trunk = network.module.get_submodule("trunk").state_dict()
        assert all(torch.equal(tensor, published[name]) for name, tensor in trunk.items())

    def test_the_weights_of_an_earlier_version(self, tmp_path: Path) -> None:
        earlier = saved(tmp_path / "version")
        network = self.make(tmp_path / "version" / "weights.safetensors")
        weights = earlier.module.state_dict()
        for name, tensor in network.module.state_dict().items():
            assert torch.equal(tensor, weights[name]) == (not name.startswith("head.")), name

    @pytest.mark.parametrize("side", [32, 64])
    def test_the_stem_is_that_of_the_weights(self, tmp_path: Path, side: int) -> None:
        """From scratch, resnet18 has one of its own for small images."""
        earlier = make_network("classification", "resnet18", ("a", "b"), side, pretrained=False)
        earlier.save(tmp_path / "earlier")
        own = tmp_path / "earlier/weights.safetensors"
        made = make_network("classification", "resnet18", ("a", "b"), 32, weights_file=own)
        made.save(tmp_path / "made")
        loaded = load_network(tmp_path / "made", CPU, ("b", "a"))
        stem = loaded.module.state_dict()["trunk.conv1.weight"]
        assert torch.equal(stem, earlier.module.state_dict()["trunk.conv1.weight"])

    def test_another_network(self, tmp_path: Path) -> None:
        torch.save(resnet18().state_dict(), tmp_path / "own.pth")
        with pytest.raises(ModelError, match=r"^The weights don't fit mobilenet_v3_small: only "):
            self.make(tmp_path / "own.pth")

    @pytest.mark.parametrize("content", [{"epoch": 3}, [torch.zeros(2)], {"model": {}}])
    def test_no_tensors_by_name(self, tmp_path: Path, content: object) -> None:
        torch.save(content, tmp_path / "own.pth")
        with pytest.raises(ModelError, match="holds no state dict: no tensors by name"):
            self.make(tmp_path / "own.pth")

    @pytest.mark.parametrize(
        "content", [torch.full((2,), torch.nan), torch.empty(2, device="meta")], ids=["nan", "meta"]
    )
    def test_no_numbers(self, tmp_path: Path, content: torch.Tensor) -> None:
        torch.save({"conv1.weight": torch.zeros(2), "conv1.bias": content}, tmp_path / "own.pth")
        with pytest.raises(ModelError, match=r"not all of conv1\.bias are finite numbers\.$"):
            self.make(tmp_path / "own.pth")

    @pytest.mark.parametrize("name", ["own.pth", "own.safetensors"])
    def test_damaged_or_missing(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(ModelError, match="There is no file"):
            self.make(tmp_path / name)
        (tmp_path / name).write_bytes(b"half a file")
        with pytest.raises(ModelError, match="does not hold readable weights"):
            self.make(tmp_path / name)

    def test_cannot_run_code(self, tmp_path: Path) -> None:
        torch.save({"conv1": Malicious(tmp_path / "ran")}, tmp_path / "own.pth")
        with pytest.raises(ModelError) as error:
            self.make(tmp_path / "own.pth")
        assert str(error.value) == (
            f"{tmp_path / 'own.pth'} does not hold readable weights: it is damaged, or has other "
            "things in it than tensors by name, which may be code; save the network's state_dict() "
            "alone."
        )
        assert not (tmp_path / "ran").exists()


class Malicious:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)
