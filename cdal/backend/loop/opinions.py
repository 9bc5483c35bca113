"""Several opinions of the serving model about each image, for selectors that compare them."""

from __future__ import annotations

from dataclasses import replace

from cdal.backend.loop.context import Context
from cdal.backend.store.tables import ModelVersion, Round
from cdal.models import choose_device, load_network
from cdal.models.classification.head import ClassificationHead
from cdal.models.classification.stochastic import Committee, dropout_passes
from cdal.selectors import Pool, PoolError, opinions_of


def with_opinions(work: Context, current: Round, pool: Pool, selector: str) -> Pool:
    """The pool with the opinions that a selector compares; as it is if that needs none.

    Raises:
        PoolError: the round's model cannot give them, or there are several.
    """
    wanted = opinions_of(selector)
    if wanted is not None and pool.beside:
        raise PoolError(f'"{selector}" compares opinions of one model, and here are several')
    if wanted is None or pool.features is None or current.model_version_id is None:
        return pool
    with work.services.store.reading() as session:
        number = session.get_one(ModelVersion, current.model_version_id).number
    folder = work.services.config.version_folder(work.project.id, number)
    if wanted == "committee":
        committee = Committee.load(folder)
        if committee is None:
            raise PoolError(
                f'model version {number} was trained without a committee, which "{selector}" needs'
            )
        return replace(pool, samples=committee.opinions(pool.features))
    device = choose_device(work.services.config.device)
    network = load_network(folder, device, sources=work.services.weight_sources)
    if not isinstance(network, ClassificationHead):
        raise PoolError(
            f'"{selector}" compares passes of a head for classification, and model version '
            f"{number} is a {network.manifest.architecture} for {network.task}"
        )
    return replace(pool, samples=dropout_passes(network, pool.features, current.seed))
