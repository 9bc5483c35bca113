"""The Label Studio clients that a process keeps."""

from __future__ import annotations

from pathlib import Path

from support.offline import add_project, make_services

from cdal.backend.label_studio.clients import Clients
from cdal.backend.store.tables import Project


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
