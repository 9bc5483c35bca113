"""Exporting a model version: by an action, on the command line, and as a download of the page."""

from __future__ import annotations

import errno
import io
import json
import zipfile
from importlib import import_module
from pathlib import Path
from unittest.mock import Mock

import pytest
from safetensors import SafetensorError
from sqlalchemy import select, update
from support.offline import (
    FakeLabelStudio,
    add_project,
    add_version,
    jobs_of,
    make_browser,
    make_services,
    make_work,
    services_of,
    write_network,
)

from cdal.backend import actions
from cdal.backend.config import server_config
from cdal.backend.errors import ActionError
from cdal.backend.loop import export
from cdal.backend.loop.runner import run_job
from cdal.backend.store.tables import Export, now
from cdal.cli import main


def test_a_version_becomes_a_folder(tmp_path: Path) -> None:
    services = make_services(tmp_path / "data")
    project = add_project(services)
    add_version(services, project, number=2)
    write_network(services, project, 2)
    done = actions.export(services, project.id, None, "safetensors", tmp_path / "out")
    about = json.loads((tmp_path / "out" / "model.json").read_text())
    assert "model version 2" in done.text
    assert (about["task"], about["labels"]) == ("classification", ["cat", "dog"])


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        SafetensorError("I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_full_disk_of_the_folder_is_not_that_of_the_data_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    services = make_services(tmp_path / "data")
    add_version(services, add_project(services))

    def full(*_: object) -> float:
        raise error

    module = import_module("cdal.backend.actions.export")  # the package has a function of this name
    monkeypatch.setattr(module, "write_version", full)
    with pytest.raises(ActionError, match=r"out cannot be written: .*No space left on device"):
        actions.export(services, 1, 1, "safetensors", tmp_path / "out")


def test_why_a_version_cannot_be_exported(tmp_path: Path) -> None:
    services = make_services(tmp_path / "data")
    project = add_project(services)
    out = tmp_path / "out"
    with pytest.raises(ActionError, match="no serving model version") as none:
        actions.export(services, project.id, None, "safetensors", out)
    assert none.value.status == 404
    add_version(services, project)
    with pytest.raises(ActionError, match=r"missing") as gone:
        actions.export(services, project.id, 1, "safetensors", out)
    assert str(tmp_path) not in str(gone.value)
    with pytest.raises(ActionError, match="onnx, torchscript, safetensors"):
        actions.export(services, project.id, 1, "pickle", out)
    assert not out.exists()


@pytest.mark.parametrize("threshold", ["", ' model_score_threshold="0.6"'])
def test_the_threshold_is_that_of_the_labeling_config(threshold: str, tmp_path: Path) -> None:
    services = make_services(tmp_path / "data")
    config = (
        '<View><Image name="image" value="$image"/><RectangleLabels name="label" toName="image"'
        f'{threshold}><Label value="cat"/><Label value="dog"/></RectangleLabels></View>'
    )
    project = add_project(services, labeling_config=config)
    add_version(services, project)
    write_network(services, project, 1, "detection")
    actions.export(services, project.id, 1, "safetensors", tmp_path / "out")
    about = json.loads((tmp_path / "out" / "model.json").read_text())
    assert about["thresholds"]["score"] == (0.6 if threshold else 0.3)


def test_the_page_offers_a_version_as_a_zip_that_the_worker_has_made(tmp_path: Path) -> None:
    browser = make_browser(tmp_path)
    services = services_of(browser)
    project = add_project(services)
    add_version(services, project)
    write_network(services, project, 1)
    page, version = f"/projects/{project.id}", f"/projects/{project.id}/versions/1"
    assert f"{version}/export" in browser.get(page).get_data(as_text=True)
    assert browser.get(f"{version}/exports/safetensors").status_code == 404
    assert browser.get(f"{version}/export").status_code == 404
    assert browser.post(f"{version}/export", data={}).status_code == 400
    assert browser.post(f"{version}/export", data={"format": "safetensors"}).status_code == 303
    assert jobs_of(services) == [("export", "pending")]
    assert "safetensors: being written" in browser.get(page).get_data(as_text=True)
    assert browser.get(f"{version}/exports/safetensors").status_code == 404

    export.run(make_work(services, project, FakeLabelStudio(), "export"))
    assert f"{version}/exports/safetensors" in browser.get(page).get_data(as_text=True)
    with browser.get(f"{version}/exports/safetensors") as answer:
        assert answer.headers["Content-Disposition"].endswith("project-1-version-1-safetensors.zip")
        with zipfile.ZipFile(io.BytesIO(answer.data)) as packed:
            assert {"model.json", "manifest.json", "weights.safetensors"} <= set(packed.namelist())

    services.config.export_file(project.id, 1, "safetensors").unlink()  # as after a restored backup
    assert browser.get(f"{version}/exports/safetensors").status_code == 404
    assert "Write version 1 as safetensors" in browser.get(page).get_data(as_text=True)


def test_why_there_is_no_file_and_another_try(tmp_path: Path) -> None:
    browser = make_browser(tmp_path)
    services = services_of(browser)
    project = add_project(services)
    add_version(services, project)  # without weights
    page = f"/projects/{project.id}"
    for _ in range(2):
        actions.request_export(services, project.id, 1, "safetensors", "ann")
        export.run(make_work(services, project, FakeLabelStudio(), "export"))
        assert "cannot be exported" in browser.get(page).get_data(as_text=True)
    write_network(services, project, 1)
    actions.request_export(services, project.id, 1, "safetensors", "ann")
    export.run(make_work(services, project, FakeLabelStudio(), "export"))
    assert f"{page}/versions/1/exports/safetensors" in browser.get(page).get_data(as_text=True)


@pytest.mark.parametrize("end", ["cancelled", "failed"])
def test_nobody_waits_for_a_file_whose_job_was_given_up(
    end: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    browser = make_browser(tmp_path)
    services = services_of(browser)
    project = add_project(services)
    add_version(services, project)
    write_network(services, project, 1)
    page = f"/projects/{project.id}"
    actions.request_export(services, project.id, 1, "onnx", "ann")
    if end == "cancelled":
        actions.cancel(services, 1, "bob")
    else:
        with monkeypatch.context() as broken:
            broken.setattr(export, "load_network", Mock(side_effect=ZeroDivisionError))
            run_job(services, 1, lambda: False)
    assert jobs_of(services) == [("export", end)]
    text = browser.get(page).get_data(as_text=True)
    assert "being written" not in text
    assert ("Cancelled by bob" if end == "cancelled" else "ZeroDivisionError") in text
    # Nor does it stand in the way of the next one.
    actions.request_export(services, project.id, 1, "safetensors", "ann")
    work = make_work(services, project, FakeLabelStudio(), "export")
    assert export.run(work).startswith("1 of 1")
    actions.retry(services, 1, "ann")
    assert "ONNX: being written" in browser.get(page).get_data(as_text=True)


def test_what_a_killed_export_left_is_removed_by_the_next(tmp_path: Path) -> None:
    """With several workers, none may be alone at its start."""
    services = make_services(tmp_path)
    project = add_project(services)
    left = services.config.exports_folder(project.id) / f"{export.UNFINISHED}a"
    (left / "model").mkdir(parents=True)
    export.run(make_work(services, project, FakeLabelStudio(), "export"))
    assert not left.exists()


def test_a_file_that_another_job_will_write_is_still_awaited(tmp_path: Path) -> None:
    browser = make_browser(tmp_path)
    services = services_of(browser)
    project = add_project(services)
    add_version(services, project)
    actions.request_export(services, project.id, 1, "onnx", "ann")
    make_work(services, project, FakeLabelStudio(), "export")
    actions.cancel(services, 1, "bob")
    assert "being written" in browser.get(f"/projects/{project.id}").get_data(as_text=True)


def test_files_are_removed_a_day_later(tmp_path: Path) -> None:
    services = make_services(tmp_path)
    project = add_project(services)
    add_version(services, project)
    write_network(services, project, 1)
    work = make_work(services, project, FakeLabelStudio(), "export")
    file = services.config.export_file(project.id, 1, "safetensors")
    actions.request_export(services, project.id, 1, "safetensors", "ann")
    export.run(work)
    export.forget_old(work)
    assert file.exists()
    with services.store.transaction() as session:
        session.execute(update(Export).values(made_at=now() - 2 * export.KEPT_FOR))
    export.forget_old(work)
    assert not file.exists()
    with services.store.reading() as session:
        assert session.scalars(select(Export)).all() == []


def test_the_command_writes_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    services = make_services(tmp_path / "data")
    project = add_project(services)
    add_version(services, project)
    write_network(services, project, 1)
    for name in ("CDAL_DATABASE_URL", "LABEL_STUDIO_URL", "LABEL_STUDIO_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MODEL_DIR", str(tmp_path / "data"))
    server_config.cache_clear()
    monkeypatch.chdir(tmp_path)
    assert main(["export", "1", "--format", "safetensors"]) == 0
    assert "project-1-version-serving-safetensors" in capsys.readouterr().out
    assert (tmp_path / "project-1-version-serving-safetensors" / "model.json").exists()
    assert main(["export", "1", "--format", "safetensors"]) == 1
    assert "already exists" in capsys.readouterr().err
