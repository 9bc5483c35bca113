"""Images through a Ray cluster in two stages, by Ray Data: fetched on CPUs, then seen on GPUs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import ray
import ray.data
from ray.data import ActorPoolStrategy, DataContext

from cdal.backend.loop.engines.cluster import device_for, our_errors
from cdal.backend.loop.engines.stages import (
    Fetcher,
    Fetching,
    Items,
    Onlooker,
    PackedNetwork,
    Seen,
    packed_items,
)
from cdal.mixture_kind import MixtureKind

ROW = 64
"""Images that pass through the stages together, at least."""

Row = Mapping[str, Any]


class FetchStage:
    """`Fetcher` as Ray Data calls it. What it is made with may hold a secret, so it is a reference
    that Ray Data can neither log nor show.
    """

    def __init__(self, how: ray.ObjectRef[Fetching], packed: ray.ObjectRef[PackedNetwork]) -> None:
        self._fetcher = Fetcher(ray.get(how), ray.get(packed))

    def __call__(self, row: Row) -> dict[str, Any]:
        return {"fetched": self._fetcher(row["items"])}


class LookStage:
    """`Onlooker` as Ray Data calls it."""

    def __init__(
        self, packed: ray.ObjectRef[PackedNetwork], device: str, kind: MixtureKind | None
    ) -> None:
        self._onlooker = Onlooker(ray.get(packed), device, kind)

    def __call__(self, row: Row) -> dict[str, Any]:
        return {"seen": self._onlooker(row["fetched"])}


def run_through(
    items: Items,
    how: Fetching,
    packed: PackedNetwork,
    kind: MixtureKind | None,
    wanted_device: str,
    batch_size: int,
) -> Iterator[Seen]:
    """Show images to a network; what a lost node had in hand is done again by others.

    Args:
        items: the images.
        how: they are fetched.
        packed: the network.
        kind: of the class mixtures; None: only features are wanted.
        wanted_device: the server's setting.
        batch_size: of the network in the worker: with the same device, the same batches make the
            same bits.

    Yields:
        What came of some images, in any order.
    """
    device = device_for(wanted_device)
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    rows = [{"items": packed_items(some)} for some in _split(items, batch_size)]
    # References, since both live as long as the pass and may be wanted again by a new node.
    fetching, network = ray.put(how), ray.put(packed)
    images = ray.data.from_items(rows, override_num_blocks=len(rows))
    fetched = images.map(
        FetchStage,
        fn_constructor_args=(fetching, network),
        compute=ActorPoolStrategy(min_size=1),
        num_cpus=1,
    )
    seen = fetched.map(
        LookStage,
        fn_constructor_args=(network, device, kind),
        compute=ActorPoolStrategy(min_size=1),
        **({"num_gpus": 1} if device == "cuda" else {"num_cpus": 1}),
    )
    with our_errors():
        for row in seen.iter_rows():
            yield row["seen"]


def _split(items: Items, batch_size: int) -> Iterator[Items]:
    """Whole batches together."""
    size = max(1, ROW // batch_size) * batch_size
    for start in range(0, len(items), size):
        yield items[start : start + size]
