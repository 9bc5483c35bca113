"""What is checked before anything runs on a data folder."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import stat
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from support.forked import ended
from support.offline import add_project, jobs_of, make_config, make_services
from support.processes import environment

from cdal.backend.errors import DataFolderError
from cdal.backend.services import Services
from cdal.backend.store.folder import check_data_folder, folder_id


def damage(file: Path) -> None:
    """Overwrite pages in the middle, as a dying disk does."""
    for journal in file.parent.glob(f"{file.name}-*"):
        journal.unlink()
    with file.open("r+b") as opened:
        opened.seek(4096)
        opened.write(os.urandom(8192))


def close(services: Services) -> None:
    """Bring all that was written into the database's own file."""
    with closing(sqlite3.connect(services.config.data_folder / "cdal.sqlite")) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    services.store.close()
    services.jobs.huey.storage.close()


def test_a_new_and_a_used_folder_are_sound(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    check_data_folder(config)
    services = make_services(tmp_path)
    add_project(services)
    check_data_folder(config)  # also while it is in use


def modes(folder: Path) -> dict[str, int]:
    """The permissions of the folder and of every database in it."""
    paths = [folder, *folder.glob("*.sqlite*")]
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in paths}


def test_other_users_cannot_read_a_data_folder_that_existed(tmp_path: Path) -> None:
    """Backends of earlier versions, and operators, have left them open to everybody."""
    folder = tmp_path / "data"
    services = make_services(folder)
    add_project(services)  # now there are journals, too
    shutil.copy(folder / "cdal.sqlite", folder / "cdal-0001.sqlite")
    for path in folder.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    folder.chmod(0o755)
    check_data_folder(services.config)
    found = modes(folder)
    assert found.pop("data") == 0o700
    assert {"cdal.sqlite", "cdal.sqlite-wal", "cdal.sqlite-shm", "cdal-0001.sqlite"} <= set(found)
    assert set(found.values()) == {0o600}


def test_other_users_cannot_read_databases_wherever_they_are(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        url = f"sqlite:///{tmp_path / 'elsewhere.sqlite'}"
        services = make_services(tmp_path / "data", database_url=url)
        add_project(services)
        services.jobs.ask(1, "sync", "test")
    finally:
        os.umask(before)
    found = modes(tmp_path / "data") | modes(tmp_path)
    assert {"elsewhere.sqlite", "elsewhere.sqlite-wal", "jobs.sqlite"} <= set(found)
    assert {mode for name, mode in found.items() if ".sqlite" in name} == {0o600}


def test_a_folder_that_is_for_everybody_stays_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Closing /tmp would break the machine."""
    tmp_path.chmod(0o1777)
    check_data_folder(make_config(tmp_path))
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o1777
    assert "MODEL_DIR" in caplog.text
    assert modes(tmp_path)["cdal.sqlite"] == 0o600


@pytest.mark.slow
@pytest.mark.parametrize("name", ["serve", "worker"])
def test_a_damaged_database_is_reported_and_left_as_it_is(tmp_path: Path, name: str) -> None:
    services = make_services(tmp_path)
    add_project(services)
    close(services)
    database = tmp_path / "cdal.sqlite"
    damage(database)
    before = database.read_bytes()
    done = ended(environment(tmp_path), name)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        f"cdal: The database {database} is damaged; move it away and restore a backup, as "
        "docs/operations.md says."
    )
    assert "Traceback" not in done.stderr
    assert database.read_bytes() == before


def test_a_file_that_is_not_a_database(tmp_path: Path) -> None:
    (tmp_path / "cdal.sqlite").write_bytes(b"a letter to my aunt" * 100)
    with pytest.raises(DataFolderError, match="is damaged"):
        check_data_folder(make_config(tmp_path))


def test_damaged_messages_are_replaced_and_no_job_is_lost(tmp_path: Path) -> None:
    services = make_services(tmp_path)
    add_project(services)
    services.jobs.ask(1, "train", "test")
    close(services)
    damage(services.config.jobs_file)
    check_data_folder(services.config)
    again = make_services(tmp_path)
    assert jobs_of(again) == [("train", "pending")]
    again.jobs.send_pending()
    assert len(again.jobs.huey) == 1


@pytest.mark.parametrize("url", ["postgresql://host:many/name", "sqlite:////no/such/folder/f"])
def test_an_address_that_is_not_a_databases_is_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(DataFolderError, match="CDAL_DATABASE_URL"):
        check_data_folder(make_config(tmp_path, database_url=url))


@pytest.fixture
def locked_away() -> Iterator[Path]:
    """A data folder that was used, and that its user may now read and not write."""
    folder = Path(tempfile.mkdtemp())  # pytest's own folders are closed to other users
    services = make_services(folder)
    add_project(services)
    close(services)
    for path in folder.rglob("*"):
        path.chmod(0o444 if path.is_file() else 0o555)
    folder.chmod(0o555)
    yield folder
    folder.chmod(0o755)
    shutil.rmtree(folder)


NOBODY = 65534
"""Nothing stops root from writing."""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["serve", "worker"])
def test_a_folder_that_cannot_be_written_is_reported_in_a_sentence(
    locked_away: Path, name: str
) -> None:
    done = ended(environment(locked_away), name, user=NOBODY)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        f"cdal: The data folder {locked_away} cannot be written: Permission denied."
    )
    assert "Traceback" not in done.stderr


def test_the_id_of_a_folder_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []
    fsync = os.fsync

    def note(descriptor: int) -> None:
        written.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        assert written != [tmp_path.name]
        assert (tmp_path / "folder-id").exists() == (written[-1] == tmp_path.name)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    assert folder_id(tmp_path) == folder_id(tmp_path) != ""
    assert len(written) == 2


@pytest.mark.parametrize("code", [errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_without_hard_links_is_refused_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(DataFolderError, match=r"no hard links.*MODEL_DIR"):
        folder_id(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fails_is_not_taken_for_one_without_hard_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "link", fail)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        folder_id(tmp_path)
