"""Images that could not be read are looked at again."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import select
from support.offline import (
    FakeLabelStudio,
    add_project,
    add_tasks,
    jobs_of,
    make_services,
    make_work,
    picture,
)

from cdal.backend.loop import recheck
from cdal.backend.store.tables import Task


def test_images_that_can_be_read_again_can_be_selected_again(tmp_path: Path) -> None:
    services = make_services(tmp_path)
    project = add_project(services)
    add_tasks(services, project, [1, 2], image=picture(), image_problem="was away")
    add_tasks(services, project, [3], image="ftp://example.com/3", image_problem="is away")
    add_tasks(services, project, [4], image="ftp://example.com/4")
    work = make_work(services, project, FakeLabelStudio(), "recheck")
    assert recheck.run(work) == "2 of 3 images can be read again"
    with services.store.reading() as session:
        bad = session.execute(select(Task.task_id, Task.image_problem)).all()
    assert [tuple(row) for row in bad] == [(1, None), (2, None), (3, "is away"), (4, None)]
    assert jobs_of(services)[1:] == [("sync", "pending")]
