"""Images that were being decoded when a process died."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import AbstractContextManager
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from cdal.backend.errors import ImageError
from cdal.backend.images import in_flight as module
from cdal.backend.images.in_flight import InFlight

ONE, OTHER = (InFlight.digest(data) for data in (b"one", b"other"))


# What a killed process was doing: the end of a generator that nobody refers to any more would run.
_never_ended: list[AbstractContextManager[None]] = []


def die_decoding(folder: Path, *digests: bytes) -> None:
    """Leave behind what a killed process does: the system releases its lock."""
    dying = InFlight(folder)
    for digest in digests:
        _never_ended.append(dying.decoding(digest))
        _never_ended[-1].__enter__()
    assert dying._file is not None
    os.close(dying._file)
    dying._file = None


def test_images_of_a_killed_process_are_suspect(tmp_path: Path) -> None:
    assert not InFlight(tmp_path).is_suspect(ONE)
    die_decoding(tmp_path, ONE, OTHER)
    after = InFlight(tmp_path)
    assert after.is_suspect(ONE)
    assert after.is_suspect(OTHER)
    with after.decoding(OTHER):  # which ends well
        pass
    assert not after.is_suspect(OTHER)
    assert after.is_suspect(ONE)


def test_one_that_is_refused_is_not_suspect(tmp_path: Path) -> None:
    die_decoding(tmp_path, ONE, OTHER)
    after = InFlight(tmp_path)
    with pytest.raises(ImageError), after.decoding(ONE):
        raise ImageError("It is damaged.")
    assert not after.is_suspect(ONE)


def test_one_that_kills_a_process_alone_is_not_decoded_again(tmp_path: Path) -> None:
    die_decoding(tmp_path, ONE, OTHER)
    die_decoding(tmp_path, ONE)
    after = InFlight(tmp_path)
    with pytest.raises(ImageError, match="killed") as refused:
        after.is_suspect(ONE)
    assert not refused.value.passes
    assert after.is_suspect(OTHER)


def test_a_kill_at_a_random_moment_condemns_nothing(tmp_path: Path) -> None:
    die_decoding(tmp_path, ONE)
    assert InFlight(tmp_path).is_suspect(ONE)
    die_decoding(tmp_path, ONE, OTHER)
    assert InFlight(tmp_path).is_suspect(ONE)


def test_what_failed_or_ended_before_the_kill_is_not_suspect(tmp_path: Path) -> None:
    dying = InFlight(tmp_path)
    with pytest.raises(ZeroDivisionError), dying.decoding(ONE):
        raise ZeroDivisionError
    die_decoding(tmp_path)
    assert not InFlight(tmp_path).is_suspect(ONE)


def test_a_process_that_lives_is_not_judged(tmp_path: Path) -> None:
    alive = InFlight(tmp_path)
    with alive.decoding(ONE):
        assert not InFlight(tmp_path).is_suspect(ONE)
    alive.close()
    InFlight(tmp_path).close()
    assert not InFlight(tmp_path).is_suspect(ONE)


def test_two_processes_that_start_at_the_same_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither takes the other's file, which is not locked yet, for that of one that is gone."""
    real = module.tempfile.mkstemp
    others: list[Thread] = []

    def mkstemp(**options: Any) -> tuple[int, str]:
        made = real(**options)
        if not others:
            others.append(Thread(target=InFlight, args=(tmp_path,)))
            others[0].start()
            others[0].join(0.2)
        return made

    monkeypatch.setattr(module.tempfile, "mkstemp", mkstemp)
    die_decoding(tmp_path, ONE)
    others[0].join()
    assert InFlight(tmp_path).is_suspect(ONE)


def test_a_real_kill(tmp_path: Path) -> None:
    killed = subprocess.run(
        [
            sys.executable,
            "-c",
            "import os, signal, sys\n"
            "from pathlib import Path\n"
            "from cdal.backend.images.in_flight import InFlight\n"
            "one = InFlight(Path(sys.argv[1]))\n"
            "with one.decoding(one.digest(b'one')):\n"
            "    os.kill(os.getpid(), signal.SIGKILL)\n",
            str(tmp_path),
        ],
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL
    assert InFlight(tmp_path).is_suspect(ONE)


def test_a_folder_that_cannot_be_written_is_not_needed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    without = InFlight(tmp_path / "file" / "folder")
    assert "not noticed" in caplog.text
    assert not without.is_suspect(ONE)
    with without.decoding(ONE):
        pass
