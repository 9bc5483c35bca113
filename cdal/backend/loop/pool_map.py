"""The map of the pool: images placed by t-SNE of the features that the open round went by."""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import TypeAdapter, ValidationError
from sqlalchemy import select
from sqlalchemy.orm import Session

from cdal.backend.config import ServerConfig
from cdal.backend.loop.context import Context
from cdal.backend.loop.pool_scores import Scores
from cdal.backend.loop.rounds import open_round, scored_by
from cdal.backend.store.tables import Pick, Project, Task

MOST_POINTS = 2000

MOST_QUEUED = 600

MOST_LABELLED = 600

LEAST_SPREAD = 1e-6
"""Images whose features differ by no more than this are copies of each other."""

COMPONENTS = 50
"""Principal components that t-SNE starts from: much faster, and distances hardly change."""


def run(work: Context) -> str:
    """Place the images that were scored for the open round, or a sample of them, on a map."""
    with work.services.store.reading() as session:
        current = open_round(session, work.project)
        number = None if current is None else scored_by(session, current)
        if current is None or number is None:
            return "there are no features that could be laid out"
        queued = session.scalars(
            select(Pick.task_id).filter_by(round_id=current.id, state="queued").order_by(Pick.rank)
        ).all()
        labelled = session.scalars(
            select(Task.task_id).where(Task.project_id == work.project.id, Task.annotations > 0)
        ).all()
    folder = work.services.config.scores_folder(work.project.id, number)
    every = Scores.scored(folder)
    # The features of a million images would take gigabytes.
    shown = _sample(every, queued, set(labelled), work.settings.seed)
    some = Scores.load(folder, ("features", "probabilities", "uncertainties"), among=shown)
    if some is None:
        return "nothing has been scored yet"
    work.report(0.1, f"laying out {len(some)} images")
    places = lay_out(some.features.numpy(), work.settings.seed)
    work.check_stop()
    drawn = PoolMap(
        version=number,
        images=len(every),
        task_ids=some.task_ids.tolist(),
        x=_rounded(places[:, 0]),
        y=_rounded(places[:, 1]),
        classes=some.probabilities.argmax(1).tolist(),
        entropies=_rounded(some.uncertainties[:, 0].numpy()),
    )
    file = map_file(work.services.config.project_folder(work.project.id), number)
    drawn.save(file)
    for other in file.parent.glob("*.json"):
        if other != file:
            other.unlink(missing_ok=True)
    return f"{len(some)} of {len(every)} images laid out"


def lay_out(features: npt.NDArray[np.float32], seed: int) -> npt.NDArray[np.float64]:
    """Places in the unit square for N images, (N, 2), by t-SNE of their features, (N, D)."""
    count = len(features)
    # Too few for neighbours to mean anything, or copies of one image, with which t-SNE ends the
    # process.
    if count < 5 or not np.ptp(features, axis=0).max() > LEAST_SPREAD:
        return np.column_stack((np.linspace(0.1, 0.9, count), np.full(count, 0.5)))
    # Takes seconds, and few processes draw a map.
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    components = min(COMPONENTS, count, features.shape[1])
    reduced = PCA(components, random_state=seed).fit_transform(features.astype(np.float64))
    places = TSNE(
        perplexity=min(30.0, (count - 1) / 3), init="pca", random_state=seed, n_jobs=1
    ).fit_transform(reduced)
    low, high = places.min(0), places.max(0)
    scaled: npt.NDArray[np.float64] = (places - low) / np.maximum(high - low, 1e-9)
    return scaled


def _sample(every: set[int], queued: Sequence[int], labelled: set[int], seed: int) -> set[int]:
    """Tasks to show: the front of the queue, and random ones of the labelled and of the others."""
    if len(every) <= MOST_POINTS:
        return every
    draws = np.random.default_rng(seed)
    front = queued[:MOST_QUEUED]
    known = _some(draws, (every & labelled) - set(front), MOST_LABELLED)
    rest = every - set(queued) - labelled
    return {*front, *known, *_some(draws, rest, MOST_POINTS - len(front) - len(known))}


def _some(draws: np.random.Generator, tasks: set[int], most: int) -> list[int]:
    ordered = sorted(tasks)
    return draws.permutation(ordered)[:most].tolist() if ordered else []


def _rounded(values: npt.NDArray[np.floating]) -> list[float]:
    rounded: list[float] = np.round(values.astype(np.float64), 4).tolist()
    return rounded


@dataclass(frozen=True, slots=True)
class PoolMap:
    """The map by one model version: N points, in lists of the same length.

    Attributes:
        version: the model version's number; see `UNTRAINED`.
        images: how many have been scored; the map shows a sample of many.
        task_ids: the images.
        x: in [0, 1].
        y: in [0, 1].
        classes: index of each image's most probable class.
        entropies: in bits, the mean over the image's regions.
    """

    version: int
    images: int
    task_ids: list[int]
    x: list[float]
    y: list[float]
    classes: list[int]
    entropies: list[float]

    def save(self, file: Path) -> None:
        """Write the file: all of it or, after a kill, nothing."""
        file.parent.mkdir(parents=True, exist_ok=True)
        unfinished = file.with_suffix(".unfinished")
        content = json.dumps(asdict(self)).encode()
        unfinished.write_bytes(_checksum(content) + content)
        unfinished.rename(file)

    @classmethod
    def load(cls, file: Path) -> PoolMap | None:
        """The saved map; None if there is none, or if it is damaged or of another format."""
        try:
            written = file.read_bytes()
            checksum, content = written[:CHECKSUM_LENGTH], written[CHECKSUM_LENGTH:]
            if checksum != _checksum(content):
                return None
            return TypeAdapter(cls).validate_json(content, strict=True)
        except (FileNotFoundError, ValidationError):
            return None


def _checksum(content: bytes) -> bytes:
    """A CRC-32 as a line of text."""
    return f"{zlib.crc32(content):08x}\n".encode()


CHECKSUM_LENGTH = len(_checksum(b""))


def newest_map(session: Session, config: ServerConfig, project: Project) -> PoolMap | None:
    """The map by what the open round went by; None if that is nothing, or there is no map yet."""
    current = open_round(session, project)
    number = None if current is None else scored_by(session, current)
    if number is None:
        return None
    return PoolMap.load(map_file(config.project_folder(project.id), number))


def map_file(project_folder: Path, version: int) -> Path:
    """The file of a model version's map."""
    return project_folder / "pool_maps" / f"{version}.json"
