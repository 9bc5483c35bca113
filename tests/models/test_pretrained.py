from __future__ import annotations

import logging
import pickle
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
import torchvision.models
from support.colours import small_network
from torch import nn
from torchvision.models import mobilenet_v3_small, resnet18

from cdal.models import (
    ModelError,
    Origin,
    TaskNetwork,
    WeightSources,
    load_network,
    make_network,
    weight_sources,
)
from cdal.models.pretrained import Pretrained, pretrained_weights, published_weights

CPU = torch.device("cpu")
FILE = "mobilenet_v3_small-047dcff4.pth"


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise URLError("no network")

    monkeypatch.setattr(weight_sources, "_answer", refuse)
    monkeypatch.setattr(weight_sources, "_failed", {})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a weight file in torchvision's format, with random weights."""
    with torch.random.fork_rng():
        torch.manual_seed(11)
        published = torchvision.models.mobilenet_v3_small()
    torch.save(published.state_dict(), tmp_path / FILE)
    return tmp_path


@pytest.mark.usefixtures("no_network")
class TestTorchvisionsWeights:
    @pytest.mark.parametrize("pretrained", ["auto", True])
    def test_from_a_folder(self, folder: Path, pretrained: Pretrained) -> None:
        network = make_network(
            architecture="mobilenet_v3_small",
            classes=("a", "b"),
            image_size=32,
            pretrained=pretrained,
            sources=WeightSources(folder),
        )
        assert network.manifest.pretrained
        assert network.manifest.origin == Origin(
            "MobileNet_V3_Small_Weights.IMAGENET1K_V1",
            str(folder / FILE),
            weight_sources.file_digest(folder / FILE),
        )
        published = torch.load(folder / FILE, weights_only=True)
        trunk = network.module.get_submodule("trunk").state_dict()
        assert trunk
        assert all(torch.equal(tensor, published[name]) for name, tensor in trunk.items())

    def test_not_requested(self, folder: Path) -> None:
        found = pretrained_weights("a network", "mobilenet_v3_small", False, WeightSources(folder))
        assert found == (None, Origin("random weights"))

    def test_missing_weights_are_logged_once(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.INFO, logger="cdal"):
            for _ in range(2):
                network = make_network(
                    architecture="mobilenet_v3_small",
                    classes=("a", "b"),
                    sources=WeightSources(tmp_path),
                )
        assert not network.manifest.pretrained
        (message,) = caplog.messages
        assert f"{FILE} into {tmp_path}" in message
        assert "from scratch" in message
        assert network.manifest.origin is not None
        assert f"{FILE} into {tmp_path}" in network.manifest.origin.shortfall

    def test_torchvision_has_none(self, tmp_path: Path) -> None:
        sources = WeightSources(tmp_path)
        weights, origin = pretrained_weights("drn_d_22", None, "auto", sources)
        assert weights is None
        assert "drn_d_22" in origin.shortfall
        with pytest.raises(ModelError, match="no pretrained weights for drn_d_22"):
            pretrained_weights("drn_d_22", None, True, sources)

    def test_requested_but_not_available(self, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match=rf"could not be downloaded .*Put {FILE} into"):
            pretrained_weights(
                "a network", "mobilenet_v3_small", True, WeightSources(tmp_path, downloads=True)
            )

    def test_damaged(self, tmp_path: Path) -> None:
        (tmp_path / FILE).write_bytes(b"half a file")
        with pytest.raises(ModelError, match="does not hold readable weights"):
            pretrained_weights("a network", "mobilenet_v3_small", "auto", WeightSources(tmp_path))

    def test_weights_of_another_network(self, tmp_path: Path) -> None:
        torch.save(nn.Linear(2, 2).state_dict(), tmp_path / FILE)
        with pytest.raises(ModelError, match="fit mobilenet_v3_small: "):
            make_network(
                architecture="mobilenet_v3_small",
                classes=("a", "b"),
                sources=WeightSources(tmp_path),
            )

    def test_code_in_a_file_does_not_run(self, tmp_path: Path) -> None:
        torch.save({"conv1": Malicious(tmp_path / "ran")}, tmp_path / FILE)
        with pytest.raises(ModelError, match="does not hold readable weights"):
            pretrained_weights("a network", "mobilenet_v3_small", "auto", WeightSources(tmp_path))
        assert not (tmp_path / "ran").exists()
        pickle.loads(pickle.dumps(Malicious(tmp_path / "ran")))
        assert (tmp_path / "ran").exists()  # so it is the loader that prevented it


@pytest.mark.usefixtures("no_network")
class TestWholeNetworks:
    """Detectors and segmenters begin from COCO weights, or else from those of their backbone."""

    @pytest.mark.parametrize(
        ("task", "name"),
        [
            ("segmentation", "lraspp_mobilenet_v3_large"),
            ("segmentation", "deeplabv3_mobilenet_v3_large"),
            ("detection", "ssdlite320_mobilenet_v3_large"),
            ("detection", "fasterrcnn_mobilenet_v3_large_fpn"),
        ],
    )
    def test_all_but_the_classes_is_that_of_the_published_network(
        self, task: str, name: str, tmp_path: Path
    ) -> None:
        weights = published_weights(name, None)[0]
        with torch.random.fork_rng():
            torch.manual_seed(11)
            published = torchvision.models.get_model(
                name, weights=None, weights_backbone=None, num_classes=91
            ).state_dict()
        file = tmp_path / weights.url.rpartition("/")[2]
        torch.save(published, file)
        made = make_network(task, name, ("a", "b"), 64, sources=WeightSources(tmp_path))
        assert made.manifest.origin == Origin(
            str(weights), str(file), weight_sources.file_digest(file)
        )
        fresh = set(made.class_rows())
        own = {
            name: value
            for name, value in made.module.state_dict().items()
            if name not in fresh and not name.endswith("num_batches_tracked")
        }
        same = {
            ours
            for ours, value in own.items()
            if any(
                ours.endswith(theirs) and value.shape == tensor.shape and value.equal(tensor)
                for theirs, tensor in published.items()
            )
        }
        assert own.keys() - same == set()
        assert own

    def test_else_it_begins_from_the_backbones_weights_and_says_so(self, tmp_path: Path) -> None:
        coco, imagenet = published_weights("lraspp_mobilenet_v3_large", "mobilenet_v3_large")
        with torch.random.fork_rng():
            backbone = torchvision.models.mobilenet_v3_large()
        torch.save(backbone.state_dict(), tmp_path / imagenet.url.rpartition("/")[2])
        sources = WeightSources(tmp_path, downloads=True)
        made = make_network(
            "segmentation", "lraspp_mobilenet_v3_large", ("a", "b"), 64, sources=sources
        )
        origin = made.manifest.origin
        assert origin is not None
        assert origin.name == str(imagenet) == "MobileNet_V3_Large_Weights.IMAGENET1K_V2"
        assert str(coco) in origin.shortfall
        assert coco.url.rpartition("/")[2] in origin.shortfall

    def test_a_manifest_keeps_what_it_began_from(self, tmp_path: Path) -> None:
        made = make_network("segmentation", "drn_d_22", ("a", "b"), 64)
        made.save(tmp_path / "version")
        assert made.manifest.origin is not None
        assert load_network(tmp_path / "version", CPU).manifest.origin == made.manifest.origin


class TestWeightsFile:
    """Weights that the user provides."""

    @pytest.fixture
    def published(self) -> dict[str, torch.Tensor]:
        """Weights of torchvision's network for another number of classes."""
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
        assert network.manifest.origin is not None
        assert network.manifest.origin.name == "own.pth"
        trunk = network.module.get_submodule("trunk").state_dict()
        assert all(torch.equal(tensor, published[name]) for name, tensor in trunk.items())

    def test_the_weights_of_an_earlier_version(self, tmp_path: Path) -> None:
        earlier = small_network()
        earlier.save(tmp_path / "version")
        network = self.make(tmp_path / "version" / "weights.safetensors")
        weights = earlier.module.state_dict()
        for name, tensor in network.module.state_dict().items():
            assert torch.equal(tensor, weights[name]) == (not name.startswith("head.")), name

    @pytest.mark.parametrize("side", [32, 64])
    def test_the_weights_decide_which_stem_is_built(self, tmp_path: Path, side: int) -> None:
        """From scratch, resnet18 has a special stem for small images."""
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
        with pytest.raises(ModelError, match=r"fit mobilenet_v3_small: only \d+ of "):
            self.make(tmp_path / "own.pth")

    @pytest.mark.parametrize("content", [{"epoch": 3}, [torch.zeros(2)], {"model": {}}])
    def test_no_named_tensors(self, tmp_path: Path, content: object) -> None:
        torch.save(content, tmp_path / "own.pth")
        with pytest.raises(ModelError, match="does not hold a state dict"):
            self.make(tmp_path / "own.pth")

    @pytest.mark.parametrize(
        "content", [torch.full((2,), torch.nan), torch.empty(2, device="meta")], ids=["nan", "meta"]
    )
    def test_values_that_are_not_finite(self, tmp_path: Path, content: torch.Tensor) -> None:
        torch.save({"conv1.weight": torch.zeros(2), "conv1.bias": content}, tmp_path / "own.pth")
        with pytest.raises(ModelError, match=r"conv1\.bias"):
            self.make(tmp_path / "own.pth")

    @pytest.mark.parametrize("name", ["own.pth", "own.safetensors"])
    def test_damaged_or_missing(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(ModelError, match=f"{name} does not exist"):
            self.make(tmp_path / name)
        (tmp_path / name).write_bytes(b"half a file")
        with pytest.raises(ModelError, match="does not hold readable weights"):
            self.make(tmp_path / name)

    def test_code_in_a_file_does_not_run(self, tmp_path: Path) -> None:
        torch.save({"conv1": Malicious(tmp_path / "ran")}, tmp_path / "own.pth")
        with pytest.raises(ModelError) as error:
            self.make(tmp_path / "own.pth")
        assert str(tmp_path / "own.pth") in str(error.value)
        assert "save only the network's state_dict()" in str(error.value)
        assert not (tmp_path / "ran").exists()


class Malicious:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)
