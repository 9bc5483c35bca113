"""The store: transactions, readers and writers at the same time, events."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator

import pytest
from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError

from cdal.backend.store.database import Store
from cdal.backend.store.events import note
from cdal.backend.store.tables import Event, Job, Project


@pytest.fixture
def store(store_url: str) -> Iterator[Store]:
    opened = Store(store_url)
    yield opened
    opened.close()


def count(store: Store) -> int:
    with store.reading() as session:
        return session.scalar(select(func.count(Event.id))) or 0


def test_an_error_takes_everything_back(store: Store) -> None:
    with pytest.raises(ZeroDivisionError), store.transaction() as session:  # noqa: PT012
        note(session, None, "never happened")
        session.flush()
        1 / 0  # noqa: B018
    assert count(store) == 0


def test_what_was_written_is_there_after_opening_again(store: Store) -> None:
    with store.transaction() as session:
        note(session, None, "happened")
    address = store.engine.url
    store.close()
    again = Store(address.render_as_string())
    assert count(again) == 1
    again.close()


def test_a_reader_neither_waits_for_a_writer_nor_sees_half_of_its_work(store: Store) -> None:
    with store.transaction() as session:
        note(session, None, "half")
        session.flush()
        assert count(store) == 0  # on another connection, at once
    assert count(store) == 1


def test_writers_that_read_first_wait_for_each_other(store: Store) -> None:
    """Each counts and then writes; without the lock from the start, one would fail or miscount."""
    seen: list[int] = []

    def write() -> None:
        for _ in range(10):
            with store.transaction() as session:
                seen.append(session.scalar(select(func.count(Event.id))) or 0)
                note(session, None, "one more")

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(seen) == list(range(40))


def test_rows_that_belong_to_nothing_are_refused(store: Store) -> None:
    with pytest.raises(IntegrityError), store.transaction() as session:
        session.add(Event(project_id=99, level="info", text="of no project"))


def test_the_database_itself_allows_one_waiting_job_per_kind(store: Store) -> None:
    with store.transaction() as session:
        session.add(
            Project(uid="1", label_studio_id=1, url="", labeling_config="", extra_params=None)
        )
        session.flush()
        for state in ("pending", "running", "done", "done"):
            session.add(Job(project_id=1, kind="sync", state=state, asked_by=""))
    with pytest.raises(IntegrityError), store.transaction() as session:
        session.add(Job(project_id=1, kind="sync", state="pending", asked_by=""))


def test_an_event_is_recorded_and_logged(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO), store.transaction() as session:
        note(session, None, "Something odd", "warning")
    (record,) = [r for r in caplog.records if r.name == "cdal.backend.store.events"]
    assert (record.levelname, record.getMessage()) == ("WARNING", "Something odd")
    with store.reading() as session:
        event = session.scalars(select(Event)).one()
    assert (event.level, event.text) == ("warning", "Something odd")
