from __future__ import annotations

import torch
from torch import nn

from cdal.models.pretrained import adopt
from cdal.models.segmentation.drn import CHANNELS, Backbone, ResidualBlock, drn_d_22
from cdal.models.segmentation.network import Segmenter

BLOCK = ("conv1.weight", "bn1.weight", "conv2.weight", "bn2.weight")


class TestDRN:
    def test_has_the_published_number_of_parameters(self) -> None:
        """With the published 1×1 classifier for 1,000 classes, there are 16,393,752."""
        network = drn_d_22(1000)
        assert sum(parameter.numel() for parameter in network.parameters()) == 16_393_752

    def test_keeps_an_eighth_of_the_resolution(self) -> None:
        network = drn_d_22(5).eval()
        with torch.inference_mode():
            maps = network.backbone(torch.zeros(1, 3, 64, 96))["out"]
            assert maps.shape == (1, CHANNELS, 8, 12)
            assert network.classifier(maps).shape == (1, 5, 8, 12)

    def test_dilations_of_the_levels(self) -> None:
        """The dilation is 1 up to level 4, where the stride is 8; then 2, 4, 2 and 1."""
        found: dict[str, set[int]] = {}
        for name, layer in Backbone().named_modules():
            if isinstance(layer, nn.Conv2d) and layer.kernel_size != (1, 1):
                found.setdefault(name.partition(".")[0], set()).add(layer.dilation[0])
        assert list(found) == [f"layer{level}" for level in range(9)]
        assert list(found.values()) == [{1}, {1}, {1}, {1}, {1}, {2}, {4}, {2}, {1}]

    def test_a_residual_block_with_zero_weights_is_its_shortcut(self) -> None:
        block = ResidualBlock(4, 4, 1, (2, 2)).eval()
        nn.init.zeros_(block.conv2.weight)
        maps = torch.rand(1, 4, 6, 6)
        with torch.inference_mode():
            assert torch.equal(block(maps), maps)

    def test_initial_logits_are_moderate(self) -> None:
        torch.manual_seed(0)
        network = Segmenter(drn_d_22(11)).train()
        with torch.no_grad():
            logits = network(torch.randn(4, 3, 64, 64))[1]
        assert 0.1 < float(logits.std()) < 3


class TestNames:
    def test_match_those_of_the_authors(self) -> None:
        names = set(Backbone().state_dict())
        assert {"layer0.0.weight", "layer0.1.running_mean", "layer2.0.weight"} <= names
        assert {f"layer5.1.{name}" for name in BLOCK} <= names
        assert {"layer3.0.downsample.0.weight", "layer3.0.downsample.1.weight"} <= names
        assert {"layer7.0.weight", "layer8.1.bias"} <= names

    def test_the_authors_classifier_can_be_adopted(self) -> None:
        """Published for ImageNet, with named levels and a final convolution fc."""
        published = dict(Backbone().state_dict())
        published["fc.weight"] = torch.zeros(1000, CHANNELS, 1, 1)
        network = Segmenter(drn_d_22(3))
        assert adopt(network, published, "drn_d_22") == len(published) - 1
        assert torch.equal(
            network.state_dict()["backbone.layer6.0.conv1.weight"],
            published["layer6.0.conv1.weight"],
        )

    def test_the_authors_segmentation_network_can_be_adopted(self) -> None:
        """Published for Cityscapes, with numbered levels in a base and a convolution seg."""
        levels = Backbone().state_dict()
        published = {
            "base." + name.removeprefix("layer"): tensor for name, tensor in levels.items()
        }
        published["seg.weight"] = torch.zeros(19, CHANNELS, 1, 1)
        assert "base.0.0.weight" in published
        network = Segmenter(drn_d_22(3))
        assert adopt(network, published, "drn_d_22") == len(levels)
        assert torch.equal(
            network.state_dict()["backbone.layer8.0.weight"], published["base.8.0.weight"]
        )
