from __future__ import annotations

import pytest
import torch
import torchvision.models
from support.shapes import Shapes, shapes_network
from torch import nn

from cdal.models import Recipe, is_backbone
from cdal.models.pretrained import adopt
from cdal.models.segmentation.architectures import SEGMENTERS, build_segmenter
from cdal.models.segmentation.network import Segmenter

STRIDES = {
    "lraspp_mobilenet_v3_large": 8,
    "deeplabv3_mobilenet_v3_large": 16,
    "deeplabv3_resnet50": 8,
    "deeplabv3_resnet101": 8,
    "fcn_resnet50": 8,
    "drn_d_22": 8,
    "fcn8s_quarter": 8,
    "icnet": 4,
    "lraspp_efficientnet_lite0": 8,
}


def layout(architecture: str, classes: int) -> nn.Module:
    """The layers of a network, without allocating its weights."""
    with torch.device("meta"):
        return Segmenter(build_segmenter(architecture, classes))


def test_all_networks_that_learn_classes_alone_are_here() -> None:
    assert set(STRIDES) == {n for n, entry in SEGMENTERS.items() if not entry.finds_objects}


@pytest.mark.parametrize("architecture", STRIDES)
class TestEveryNetwork:
    def test_learns_and_predicts_at_its_own_stride(self, architecture: str) -> None:
        network = shapes_network(architecture=architecture)
        images, masks = zip(*Shapes(2).examples, strict=True)
        objective = network.objective(torch.ones(3).double(), Recipe())
        network.module.train()
        loss = objective(torch.stack(images).float(), masks)
        torch.autograd.backward(loss)
        without = [name for name, p in network.module.named_parameters() if p.grad is None]
        assert without == []
        assert float(loss.detach()) > 0
        network.module.eval()
        prediction = network.predict(torch.stack(images))
        side = 64 // STRIDES[architecture]
        assert prediction.logits.shape == (2, 3, side, side)
        assert prediction.features.shape[0] == 2
        assert prediction.logits.dtype == prediction.features.dtype == torch.float32

    def test_only_class_rows_depend_on_the_number_of_classes(self, architecture: str) -> None:
        two, three = (layout(architecture, classes).state_dict() for classes in (2, 3))
        differing = {name for name in three if three[name].shape != two[name].shape}
        heads = SEGMENTERS[architecture].heads
        assert differing == {f"{head}.{part}" for head in heads for part in ("weight", "bias")}

    def test_batch_norms_adapt_in_a_few_steps(self, architecture: str) -> None:
        layers = layout(architecture, 2).modules()
        momenta = {layer.momentum for layer in layers if isinstance(layer, nn.BatchNorm2d)}
        assert momenta == {0.1}

    def test_takes_its_backbone_from_torchvision(self, architecture: str) -> None:
        backbone = SEGMENTERS[architecture].backbone
        if backbone is None or is_backbone(backbone):
            # See test_drn.py and test_efficientnet.py; nobody publishes any for the other two.
            assert architecture in (
                "drn_d_22", "lraspp_efficientnet_lite0", "fcn8s_quarter", "icnet",
            )  # fmt: skip
            return
        weights = torchvision.models.get_model(backbone, weights=None).state_dict()
        network = shapes_network(architecture=architecture)
        adopt(network.module, weights, architecture)
        taken = 0
        for name, tensor in network.module.backbone.state_dict().items():
            published = f"features.{name}" if "mobilenet" in backbone else name
            assert torch.equal(tensor, weights[published])
            taken += 1
        assert taken > 100
