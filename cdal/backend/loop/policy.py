"""CDAL-RL's selections: with a policy that is trained for each order, or once and kept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cdal.backend.loop.context import Context
from cdal.selectors import Pool, Progress, Selection, make_selector
from cdal.selectors.policy import PolicyFileError

_OF_MIXTURES = ("region", "classes", "mixture_weights", "box_confidence", "box_background")
"""The settings that say what class mixtures are: a policy has learnt from one kind of them."""


def select_by_policy(
    work: Context,
    pool: Pool,
    options: Mapping[str, Any],
    count: int,
    seed: int,
    progress: Progress,
) -> Selection:
    """The picks of `cdal-rl`, on the pool's device.

    With the setting `policy` "once", its policy is read from the project's folder; if there is none
    for these options, classes and mixtures, or if it is damaged, it is trained now and kept there.
    """
    if work.settings.policy == "each":
        return make_selector("cdal-rl", options).select(pool, count, seed, progress)
    file = policy_file(work, pool, options)
    for other in set(file.parent.glob("*.safetensors")) - {file}:
        other.unlink(missing_ok=True)
    selector = make_selector("cdal-rl", {**options, "weights": file})
    try:
        return selector.select(pool, count, seed, progress)
    except PolicyFileError:
        file.unlink(missing_ok=True)
        return selector.select(pool, count, seed, progress)


def policy_file(work: Context, pool: Pool, options: Mapping[str, Any]) -> Path:
    """Where the policy for these options, classes and kinds of mixtures and scores is kept."""
    settings = {name: getattr(work.settings, name) for name in _OF_MIXTURES}
    kind = [tuple(pool.mixtures.shape[1:]), pool.features is not None, settings]
    read: list[object] = [options, work.control.labels, kind]
    if pool.beside:
        read += [
            [each.mixtures.shape[1:] for each in pool.beside],
            [c.labels for c in work.controls],
        ]
    what = json.dumps(read, sort_keys=True)
    name = hashlib.sha256(what.encode()).hexdigest()[:16]
    folder = work.services.config.project_folder(work.project.id) / "policies"
    return folder / f"{name}.safetensors"
