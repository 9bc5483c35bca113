"""The networks that a process keeps loaded."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from support.colours import small_network

from cdal.backend import loaded_networks
from cdal.backend.loaded_networks import LoadedNetworks, weight_bytes
from cdal.models import ModelError, make_network


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("versions")
    network = small_network(("cat", "dog"))
    for number in range(3):
        network.save(root / str(number), f"print-{number}")
    return [root / str(number) for number in range(3)]


def test_a_network_is_loaded_once_however_many_ask(folders: list[Path]) -> None:
    networks = LoadedNetworks("cpu")
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(networks.get(folders[0]))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert all(network is found[0] for network in found)


@pytest.mark.slow
def test_the_least_recently_used_goes_first(
    folders: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    networks = LoadedNetworks("cpu")
    size = weight_bytes([networks.get(folders[0])])
    monkeypatch.setattr(loaded_networks, "MOST_BYTES", 2 * size)
    first, second = networks.get(folders[0]), networks.get(folders[1])
    assert networks.get(folders[0]) is first
    networks.get(folders[2])  # the second is now the least recently used
    assert networks.get(folders[0]) is first
    assert networks.get(folders[1]) is not second


def test_one_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ModelError):
        LoadedNetworks("cpu").get(tmp_path / "none")


def test_many_small_networks_stay_loaded(folders: list[Path]) -> None:
    """Two busy projects with two controls each have four."""
    networks = LoadedNetworks("cpu")
    found = [networks.get(folder) for folder in folders]
    assert all(networks.get(f) is n for f, n in zip(folders, found, strict=True))


def test_one_that_is_too_large_is_loaded_alone(
    folders: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loaded_networks, "MOST_BYTES", 1)
    networks = LoadedNetworks("cpu")
    first, second = networks.get(folders[0]), networks.get(folders[1])
    assert networks.get(folders[1]) is second
    assert networks.get(folders[0]) is not first


def test_heads_count_their_backbone_once() -> None:
    heads = [make_network("classification", None, ("cat", "dog")) for _ in range(2)]
    one, both = weight_bytes(heads[:1]), weight_bytes(heads)
    own = sum(weight.nbytes for weight in heads[1].module.parameters())
    assert (both - one, one > 10 * own) == (own, True)
