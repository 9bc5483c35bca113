"""PostgreSQL: what the store promises beyond test_database.py, which covers both databases."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import func, select
from sqlalchemy.exc import DBAPIError
from support.offline import make_config
from support.servers import PostgreSQL

from cdal.backend.errors import DataFolderError
from cdal.backend.store.database import Store
from cdal.backend.store.events import note
from cdal.backend.store.folder import check_data_folder
from cdal.backend.store.tables import Event, Job, Project, Task
from cdal.demo.process import free_port


@pytest.fixture
def url(postgresql: PostgreSQL) -> str:
    return postgresql.new_store()


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    opened = Store(url)
    yield opened
    opened.close()


def count(store: Store) -> int:
    with store.reading() as session:
        return session.scalar(select(func.count(Event.id))) or 0


def test_many_processes_may_open_a_new_database_at_once(postgresql: PostgreSQL) -> None:
    """Without a lock, two would make the same table, and one would fail."""
    url = postgresql.new_database()
    barrier = threading.Barrier(6)

    def open_store() -> None:
        barrier.wait()
        Store(url).close()

    with ThreadPoolExecutor(6) as pool:
        for opened in [pool.submit(open_store) for _ in range(6)]:
            opened.result()


def test_writers_of_several_processes_wait_for_each_other(store: Store, url: str) -> None:
    """Each has its own connections; test_database.py does the same in threads of one process."""
    seen: list[int] = []

    def write() -> None:
        own = Store(url)
        for _ in range(10):
            with own.transaction() as session:
                seen.append(session.scalar(select(func.count(Event.id))) or 0)
                note(session, None, "one more")
        own.close()

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(write) for _ in range(4)]:
            done.result()
    assert sorted(seen) == list(range(40))


def test_a_reader_sees_the_state_of_one_moment(store: Store) -> None:
    with store.reading() as session:
        query = select(func.count(Event.id))
        assert session.scalar(query) == 0
        with store.transaction() as other:
            note(other, None, "meanwhile")
        assert session.scalar(query) == 0
    assert count(store) == 1


def test_a_reader_cannot_write(store: Store) -> None:
    """On SQLite a reader could write by accident; here the tests find it."""
    with pytest.raises(DBAPIError, match="read-only"), store.reading() as session:
        note(session, None, "by accident")


def test_closed_connections_are_replaced(store: Store, url: str, postgresql: PostgreSQL) -> None:
    assert count(store) == 0
    postgresql.disconnect_all(url)
    assert count(store) == 0
    postgresql.disconnect_all(url)
    with store.transaction() as session:
        note(session, None, "written")
    assert count(store) == 1


def test_a_transaction_that_was_cut_off_leaves_nothing_and_the_next_goes_on(
    store: Store, url: str, postgresql: PostgreSQL
) -> None:
    with pytest.raises(DBAPIError), store.transaction() as session:  # noqa: PT012
        note(session, None, "half")
        session.flush()
        postgresql.disconnect_all(url)
        note(session, None, "the other half")
    with store.transaction() as session:  # the lock was given back
        note(session, None, "whole")
    with store.reading() as session:
        assert session.scalars(select(Event.text)).all() == ["whole"]


@pytest.mark.slow
def test_a_restart_of_the_server_loses_nothing_that_was_committed() -> None:
    server = PostgreSQL()
    try:
        server.start()
        store = Store(server.new_database())
        with store.transaction() as session:
            note(session, None, "before")
        server.kill()
        with pytest.raises(DBAPIError):
            count(store)
        server.start()
        assert count(store) == 1
        store.close()
    finally:
        server.close()


def test_values_come_back_as_they_were(store: Store) -> None:
    """Numbers of 63 bits, JSON of any kind, text in any script, times without a zone."""
    odd = ["\x00", "é😀", {"a": [None, True, 1.5, 2**62]}, "x" * 100_000]
    with store.transaction() as session:
        project = Project(
            uid="1", label_studio_id=2**62, url="é😀", labeling_config="'\"\\", extra_params=odd
        )
        session.add(project)
        session.flush()
        session.add(Task(project_id=project.id, task_id=2**63 - 1, image=None))
        session.add(Task(project_id=project.id, task_id=2, image=odd))
    with store.reading() as session:
        found = session.scalars(select(Project)).one()
        assert (found.label_studio_id, found.url, found.extra_params) == (2**62, "é😀", odd)
        assert found.created_at == project.created_at
        assert session.get_one(Task, (found.id, 2**63 - 1)).image is None
        assert session.get_one(Task, (found.id, 2)).image == odd
        assert session.get(Job, 2**63 - 1) is None


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("postgresql://ann:hush@127.0.0.1:{free}/x", "connection to server at"),
        ("postgresql://ann:hush@127.0.0.1:{port}/x", 'role "ann" does not exist'),
        ("postgresql://cdal:hush@127.0.0.1:{port}/none", 'database "none" does not exist'),
        ("postgresql://cdal:hush@127.0.0.1:{port}/none?password=hush", "does not exist"),
        ("sqlite:////proc/none/cdal.sqlite", "unable to open database file"),
    ],
)
def test_a_database_that_cannot_be_opened(
    postgresql: PostgreSQL, tmp_path: Path, address: str, reason: str
) -> None:
    url = address.format(port=postgresql.port, free=free_port())
    with pytest.raises(DataFolderError, match="cannot be opened, ") as caught:
        check_data_folder(make_config(tmp_path, database_url=url))
    assert reason in str(caught.value)
    assert "hush" not in str(caught.value)
    assert "\n" not in str(caught.value)
