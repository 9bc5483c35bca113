"""Only what a killed process left behind is removed."""

from __future__ import annotations

import os
import time
from pathlib import Path

from support.offline import add_project, add_round, add_version, make_services

from cdal.backend.store.leftovers import remove_leftovers
from cdal.backend.store.tables import UNTRAINED


def test_only_unknown_and_unfinished_files_are_removed(tmp_path: Path) -> None:
    services = make_services(tmp_path)
    project = add_project(services)
    add_version(services, project)
    with_model = add_project(services, uid="13.1")
    add_round(services, project, [], state="scoring", selector="typiclust")
    add_round(services, with_model, [], state="closed", selector="typiclust")
    config = services.config
    kept = [
        config.version_folder(project.id, 1) / "weights.safetensors",
        config.scores_folder(project.id, 1) / "00000000.safetensors",
        config.scores_folder(project.id, UNTRAINED) / "00000000.safetensors",
        config.project_folder(project.id) / "policies" / "a.safetensors",
        config.images_folder / "ab" / "abcdef",
        config.images_folder / "ab" / "tmp-being-written",
    ]
    gone = [
        config.version_folder(project.id, 1).with_name(".2-abc") / "weights.safetensors",
        config.version_folder(project.id, 2) / "manifest.json",
        config.scores_folder(project.id, 1) / "00000001.unfinished",
        config.scores_folder(project.id, 2) / "00000000.safetensors",
        config.scores_folder(project.id, UNTRAINED) / "00000001.unfinished",
        config.scores_folder(with_model.id, UNTRAINED) / "00000000.safetensors",
        config.version_folder(9, 1) / "weights.safetensors",  # of a project that was forgotten
        config.project_folder(project.id) / "exports" / ".unfinished-a" / "model.onnx",
        config.project_folder(project.id) / "policies" / "a.safetensors.7.partial",
        config.images_folder / "ab" / "tmp-killed",
    ]
    for file in (*kept, *gone):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"0")
    os.utime(gone[-1], (time.time() - 100,) * 2)
    services.images.remove_leftovers()
    assert remove_leftovers(services.config, services.store) == 9  # besides the cache's own
    assert [file for file in kept if not file.exists()] == []
    assert [file for file in gone if file.exists()] == []
    assert not config.version_folder(project.id, 2).exists()
    assert remove_leftovers(services.config, services.store) == 0
