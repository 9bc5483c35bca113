"""What is said of a wrong environment variable."""

from __future__ import annotations

import runpy
import sqlite3
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from gunicorn.arbiter import Arbiter
from pydantic import ValidationError
from sqlalchemy import text
from support.offline import make_config
from support.processes import environment

from cdal.backend import commands
from cdal.backend.config import server_config
from cdal.backend.store.database import Store
from cdal.backend.supervisor import serve_command
from cdal.cli import main
from cdal.demo.process import free_port


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        (
            {"PORT": "many"},
            "cdal: the environment variable PORT is wrong: input should be a valid integer, "
            "unable to parse string as an integer.\n",
        ),
        (
            {"CDAL_THREADS": "0"},
            "cdal: the environment variable CDAL_THREADS is wrong: input should be greater than "
            "or equal to 1.\n",
        ),
        (
            {"LOG_LEVEL": "loud"},
            "cdal: the environment variable LOG_LEVEL is wrong: input should be 'DEBUG', 'INFO', "
            "'WARNING' or 'ERROR'.\n",
        ),
        (
            {"CDAL_DATABASE_URL": "postgres://ann:hush@host/name"},
            "cdal: the environment variable CDAL_DATABASE_URL is wrong: it must begin with one of "
            "postgresql://, postgresql+psycopg://, sqlite:///.\n",
        ),
        (
            {"CDAL_REDIS_URL": "host:6379"},
            "cdal: the environment variable CDAL_REDIS_URL is wrong: it must begin with one of "
            "redis://, rediss://, unix://.\n",
        ),
        (
            {"BASIC_AUTH_USER": "ann"},
            "cdal: BASIC_AUTH_USER and BASIC_AUTH_PASS go together; set both or neither.\n",
        ),
        (
            {"LABEL_STUDIO_API_KEY": "a-secret"},
            "cdal: LABEL_STUDIO_API_KEY needs LABEL_STUDIO_URL, the server that it belongs to.\n",
        ),
        (
            {"MODEL_DIR": "/proc/none"},
            "cdal: the data folder (MODEL_DIR) cannot be made: No such file or directory\n",
        ),
    ],
)
@pytest.mark.parametrize("command", [commands.serve, commands.web, commands.worker])
def test_a_wrong_variable_is_named(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    command: object,
    variables: dict[str, str],
    sentence: str,
) -> None:
    for name in ("PORT", "LOG_LEVEL", "LABEL_STUDIO_URL", "LABEL_STUDIO_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MODEL_DIR", str(tmp_path))
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    server_config.cache_clear()
    assert callable(command)
    assert command() == 2
    assert capsys.readouterr().err == sentence


@pytest.mark.parametrize("command", [commands.serve, commands.web, commands.worker])
def test_a_database_that_is_away_is_told_in_a_sentence(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    command: object,
) -> None:
    monkeypatch.setenv("MODEL_DIR", str(tmp_path))
    url = f"postgresql://ann:hush@127.0.0.1:{free_port()}/name"
    monkeypatch.setenv("CDAL_DATABASE_URL", url)
    monkeypatch.setattr("os.nice", lambda _: 0)  # of the tests' own process
    server_config.cache_clear()
    assert callable(command)
    assert command() == 1
    said = capsys.readouterr().err
    begin = "cdal: The database of CDAL_DATABASE_URL cannot be opened, "
    assert said.startswith(f"{begin}{url.replace('hush', '***')}: ")
    assert said.count("\n") == 1


def test_a_queue_that_is_away_is_told_in_a_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("MODEL_DIR", str(tmp_path))
    monkeypatch.setenv("CDAL_REDIS_URL", f"redis://:hush@127.0.0.1:{free_port()}/0")
    monkeypatch.setattr("os.nice", lambda _: 0)
    server_config.cache_clear()
    assert commands.worker() == 1
    said = capsys.readouterr().err
    assert said.startswith("cdal: The queue of messages cannot be used: Error ")
    assert "hush" not in said
    assert said.count("\n") == 1


def test_a_full_disk_at_the_start_is_told_in_a_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def run_on_a_full_disk(_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setenv("MODEL_DIR", str(tmp_path))
    monkeypatch.setattr("cdal.backend.worker.run_worker", run_on_a_full_disk)
    server_config.cache_clear()
    assert commands.worker() == 1
    said = capsys.readouterr().err
    assert said.startswith("cdal: The worker cannot start. The disk of the data folder is full")
    assert said.count("\n") == 1


def test_a_missing_library_is_named_with_what_brings_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("cdal.backend.config.find_spec", lambda _: None)
    for changes, extra in (
        ({"database_url": "postgresql://host/name"}, "postgresql"),
        ({"redis_url": "redis://host"}, "redis"),
    ):
        with pytest.raises(ValidationError, match=rf"label-studio-cdal\[{extra}\]"):
            make_config(tmp_path, **changes)


@pytest.mark.parametrize("fault", ["a newer database", "a wrong variable"])
def test_gunicorn_is_told_that_the_application_cannot_run(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    fault: str,
) -> None:
    """Without a traceback, and so that gunicorn ends instead of trying again and again."""
    monkeypatch.setenv("MODEL_DIR", str(tmp_path))
    monkeypatch.delenv("CDAL_DATABASE_URL", raising=False)
    if fault == "a newer database":
        store = Store(f"sqlite:///{tmp_path / 'cdal.sqlite'}")
        with store.engine.begin() as connection:
            connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        store.close()
    else:
        monkeypatch.setenv("PORT", "many")
    server_config.cache_clear()
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(Path(__file__).parents[2] / "_wsgi.py"))
    assert ended.value.code == Arbiter.APP_LOAD_ERROR
    said = capsys.readouterr().err
    assert said.startswith("cdal: ")
    assert ("9999" in said) == (fault == "a newer database")
    assert said.count("\n") == 1


def test_the_entry_point_run_as_a_script_serves(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As people start other ML backends."""
    monkeypatch.setenv("MODEL_DIR", str(tmp_path))
    monkeypatch.delenv("CDAL_DATABASE_URL", raising=False)
    monkeypatch.setattr(sys, "argv", ["_wsgi.py"])
    became: list[list[str]] = []
    monkeypatch.setattr("os.execv", lambda _path, command: became.append(command))
    server_config.cache_clear()
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(Path(__file__).parents[2] / "_wsgi.py"), run_name="__main__")
    assert ended.value.code == 0
    assert became == [serve_command(server_config())]


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.strip() == version("label-studio-cdal")


@pytest.mark.parametrize("command", ["serve", "web", "worker", "demo", "status"])
def test_on_windows_it_says_what_to_use(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    monkeypatch.setitem(sys.modules, "fcntl", None)  # as where there is none
    for module in ("cdal.backend.worker", "cdal.demo.migrated", "cdal.demo.run"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    assert main([command]) == 1
    said = capsys.readouterr().err
    assert "Windows" in said
    assert "Docker or WSL" in said


@pytest.mark.slow
def test_the_process_ends_with_2(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "cdal", "serve"],
        env=environment(tmp_path, PORT="many"),
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 2
    assert ended.stderr.startswith("cdal: the environment variable PORT is wrong: ")
    assert "Traceback" not in ended.stderr
