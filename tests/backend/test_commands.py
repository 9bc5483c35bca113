"""What is said of a wrong environment variable."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from processes import environment

from cdal.backend import commands
from cdal.backend.config import server_config


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
            {"BASIC_AUTH_USER": "ann"},
            "cdal: BASIC_AUTH_USER and BASIC_AUTH_PASS go together; set both or none.\n",
        ),
        (
            {"LABEL_STUDIO_API_KEY": "a-secret"},
            "cdal: LABEL_STUDIO_API_KEY needs LABEL_STUDIO_URL, the server it is for.\n",
        ),
        (
            {"MODEL_DIR": "/proc/none"},
            "cdal: the data folder (MODEL_DIR) cannot be made: No such file or directory\n",
        ),
    ],
)
@pytest.mark.parametrize("command", [commands.serve, commands.worker])
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
