"""The networks and the Label Studio clients that a process keeps."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import torch
from support.offline import add_project, make_services

from cdal.backend.services import LoadedNetworks, _client
from cdal.models import ModelError, make_network


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("versions")
    network = make_network(
        architecture="mobilenet_v3_small",
        classes=("cat", "dog"),
        image_size=32,
        device=torch.device("cpu"),
        seed=0,
        pretrained=False,
    )
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


def test_the_least_recently_used_goes_first(folders: list[Path]) -> None:
    networks = LoadedNetworks("cpu")
    first, second = networks.get(folders[0]), networks.get(folders[1])
    assert networks.get(folders[0]) is first
    networks.get(folders[2])  # the second is now the least recently used
    assert networks.get(folders[0]) is first
    assert networks.get(folders[1]) is not second


def test_one_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ModelError):
        LoadedNetworks("cpu").get(tmp_path / "none")


def test_a_client_closes_its_connections_when_nobody_uses_it_any_more(tmp_path: Path) -> None:
    _client.cache_clear()  # other tests may still use theirs
    services = make_services(tmp_path)
    client = services.client(add_project(services))
    connections = client._http
    _client.cache_clear()  # as when other projects take its place
    authorization = client.authorization  # which the images of a training go on using
    del client
    assert not connections.is_closed
    del authorization
    assert connections.is_closed
