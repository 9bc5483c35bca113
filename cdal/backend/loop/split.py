"""The split of the labelled images: some to learn from, the others held out to measure models on.

The content of an image's file decides. So the same image in two tasks is on one side, and an image
stays on its side as others come.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping

from cdal.backend.loop.training_images import TrainingImages


def position(content: bytes) -> float:
    """Where an image stands among all, in [0, 1): those below the share are held out."""
    return int.from_bytes(content[:8], "big") / 2**64


def fold(content: bytes, folds: int) -> int:
    """The fold of an image in a cross-validation; independent of its position."""
    return int.from_bytes(content[8:], "big") % folds


def held_out(
    classes: Mapping[bytes, Collection[str]], share: float, learnt: Collection[bytes] = ()
) -> set[bytes]:
    """Which images are held out.

    Args:
        classes: of each image, by its content.
        share: of the images, to hold out.
        learnt: images that the network has learnt from before; none of these is held out.
    """
    chosen = {content for content in classes if position(content) < share} - set(learnt)
    members: dict[str, list[bytes]] = defaultdict(list)
    for content in sorted(classes, key=position):
        for name in classes[content]:
            members[name].append(content)
    # Of each class, an image is learnt from before any is held out: the one nearest to the share,
    # which would be the first to leave if the share fell. The rarest class comes first.
    for _, of_class in sorted(members.items(), key=lambda item: (len(item[1]), item[0])):
        if chosen.issuperset(of_class):
            chosen.discard(of_class[-1])
    return chosen


def split(
    images: TrainingImages, share: float, learnt: Collection[bytes] = ()
) -> tuple[TrainingImages, TrainingImages]:
    """Images to learn from, and held-out images, of those that were read; see `held_out`.

    Near-duplicates are on one side, that of their first.
    """
    classes: dict[bytes, set[str]] = defaultdict(set)
    for item in images.items:
        classes[item.group] |= item.truth.classes
    known = set(learnt)
    chosen = held_out(classes, share, {i.group for i in images.items if i.content in known})
    return (
        images.where(lambda item: item.group not in chosen),
        images.where(lambda item: item.group in chosen),
    )


def without(images: TrainingImages, contents: Iterable[bytes]) -> TrainingImages:
    """The images of other contents than these."""
    known = set(contents)
    return images.where(lambda item: item.content not in known)
