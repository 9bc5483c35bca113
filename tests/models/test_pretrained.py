from __future__ import annotations

import logging
import pickle
from pathlib import Path

import pytest
import torch
import torchvision.models
from torch import nn

from cdal.models import ModelError, make_network
from cdal.models import pretrained as module
from cdal.models.pretrained import Pretrained, pretrained_weights

FILE = "mobilenet_v3_small-047dcff4.pth"


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise module.URLError("no network here")

    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a weight file as torchvision publishes it, but with weights of our own."""
    with torch.random.fork_rng():
        torch.manual_seed(11)
        published = torchvision.models.mobilenet_v3_small()
    torch.save(published.state_dict(), tmp_path / FILE)
    return tmp_path


@pytest.mark.usefixtures("no_network")
class TestWeights:
    @pytest.mark.parametrize("pretrained", ["auto", True])
    def test_from_a_folder(self, folder: Path, pretrained: Pretrained) -> None:
        network = make_network(
            architecture="mobilenet_v3_small",
            classes=("a", "b"),
            image_size=32,
            pretrained=pretrained,
            weights_folder=folder,
        )
        assert network.manifest.pretrained
        published = torch.load(folder / FILE, weights_only=True)
        trunk = network.module.get_submodule("trunk").state_dict()
        assert trunk
        assert all(torch.equal(tensor, published[name]) for name, tensor in trunk.items())

    def test_not_wanted(self, folder: Path) -> None:
        assert pretrained_weights("a network", "mobilenet_v3_small", False, folder) is None

    def test_not_there_is_said_once(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.INFO, logger="cdal"):
            for _ in range(2):
                network = make_network(
                    architecture="mobilenet_v3_small", classes=("a", "b"), weights_folder=tmp_path
                )
        assert not network.manifest.pretrained
        assert caplog.messages == [
            f"No pretrained weights for mobilenet_v3_small: {tmp_path / FILE} does not exist, "
            "so training starts from scratch."
        ]

    def test_torchvision_has_none(self, tmp_path: Path) -> None:
        assert pretrained_weights("drn_d_22", None, "auto", tmp_path) is None
        with pytest.raises(ModelError, match=r"^torchvision has no pretrained weights for drn_d_"):
            pretrained_weights("drn_d_22", None, True, tmp_path)

    def test_asked_for_but_not_to_be_had(self, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match=rf"could not be downloaded .*Put {FILE} into"):
            pretrained_weights("a network", "mobilenet_v3_small", True, tmp_path)

    def test_damaged(self, tmp_path: Path) -> None:
        (tmp_path / FILE).write_bytes(b"half a file")
        with pytest.raises(ModelError, match="does not hold readable weights"):
            pretrained_weights("a network", "mobilenet_v3_small", "auto", tmp_path)

    def test_of_another_network(self, tmp_path: Path) -> None:
        torch.save(nn.Linear(2, 2).state_dict(), tmp_path / FILE)
        with pytest.raises(ModelError, match=r"^The weights don't fit mobilenet_v3_small: "):
            make_network(
                architecture="mobilenet_v3_small", classes=("a", "b"), weights_folder=tmp_path
            )

    def test_cannot_run_code(self, tmp_path: Path) -> None:
        torch.save({"conv1": Malicious(tmp_path / "ran")}, tmp_path / FILE)
        with pytest.raises(ModelError, match="does not hold readable weights"):
            pretrained_weights("a network", "mobilenet_v3_small", "auto", tmp_path)
        assert not (tmp_path / "ran").exists()
        pickle.loads(pickle.dumps(Malicious(tmp_path / "ran")))
        assert (tmp_path / "ran").exists()  # so the file would have done it


class Malicious:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)
