"""Files that a killed process left behind, half written or half removed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from sqlalchemy import select

from cdal.backend.config import ServerConfig
from cdal.backend.store.database import Store
from cdal.backend.store.tables import UNTRAINED, Job, ModelVersion, Project, Round


def remove_leftovers(config: ServerConfig, store: Store) -> int:
    """Remove what killed processes left behind; returns how many files and folders there were.

    Call it while nothing is trained or scored: at the start of the only worker.
    """
    return _remove(list(_leftovers(config, store)))


def remove_unfinished_versions(config: ServerConfig, store: Store) -> int:
    """Remove the model versions that workers were writing when they died; returns how many.

    Unlike `remove_leftovers`, it may be called while other workers train.
    """
    # Listed before the store is read: what is begun later is not in the list.
    found = list((config.data_folder / "projects").glob("*/versions/.job-*"))
    with store.reading() as session:
        running = session.scalars(select(Job).filter_by(state="running")).all()
    written = {config.unfinished_versions(j.project_id, j.id, j.attempts) for j in running}
    return _remove([path for path in found if path not in written])


def _remove(found: Sequence[Path]) -> int:
    for path in found:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    return len(found)


RENAMED = ("maps", "yardstick")
"""Folders of a project under the names of earlier versions; what they held is made again."""


def _leftovers(config: ServerConfig, store: Store) -> Iterator[Path]:
    with store.reading() as session:
        projects = {str(number) for number in session.scalars(select(Project.id))}
        pairs = session.execute(select(ModelVersion.project_id, ModelVersion.number)).all()
        # They go by what a backbone alone has seen of the pool, until there is a model.
        without_model = session.scalars(
            select(Round.project_id).where(
                Round.model_version_id.is_(None), Round.state != "closed"
            )
        ).all()
    known = {(str(project), str(number)) for project, number in pairs}
    scored = known | {(str(project), str(UNTRAINED)) for project in without_model}
    for project in (config.data_folder / "projects").glob("*"):
        if project.name not in projects:  # it was being forgotten
            yield project
            continue
        # Those with unfinished weights have names that begin with a dot.
        for kind, there in (("versions", known), ("scores", scored)):
            for folder in project.glob(f"{kind}/*"):
                if (project.name, folder.name) not in there:
                    yield folder
        yield from project.glob("exports/.*")
        yield from project.glob("policies/*.partial")
        yield from (project / name for name in RENAMED if (project / name).exists())
        for scores in project.glob("scores/*/*.unfinished"):
            if (project.name, scores.parent.name) in scored:
                yield scores
