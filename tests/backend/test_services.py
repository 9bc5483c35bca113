"""The networks and the Label Studio clients that a process keeps."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import torch
from support.offline import add_project, make_services

from cdal.backend.label_studio.clients import Clients
from cdal.backend.services import LoadedNetworks
from cdal.backend.store.tables import Project
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


@pytest.mark.slow
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
    services = make_services(tmp_path)
    object.__setattr__(services, "clients", Clients(most=1))
    client = services.client(add_project(services))
    connections = client._http
    services.clients.get("http://other.test", "token", 1)  # which takes its place
    authorization = client.authorization  # which the images of a training go on using
    del client
    assert not connections.is_closed
    del authorization
    assert connections.is_closed


def test_projects_of_one_label_studio_share_their_connections(tmp_path: Path) -> None:
    """One connection per project, of 64 at most, was opened again at every sweep of 65 projects."""
    services = make_services(tmp_path)
    projects = [
        add_project(services, uid=f"{number}.1", label_studio_id=number) for number in range(1, 100)
    ]
    clients = [services.client(project) for project in projects]
    assert len({id(client._http) for client in clients}) == 1
    assert [client.project for client in clients] == list(range(1, 100))
    with services.store.transaction() as session:
        session.get_one(Project, 99).access_token = "its own"
        projects[-1] = session.get_one(Project, 99)
    assert services.client(projects[-1])._http is not clients[0]._http
