from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from cdal.demo.scenes.files import write_scenes


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Folders of 24 drawn scenes by task, 18 of them for training."""
    folder = tmp_path_factory.mktemp("scenes")

    def of_task(task: str) -> Path:
        if not (folder / task).exists():
            write_scenes(folder / task, task, 24, size=64)
        return folder / task

    return of_task
