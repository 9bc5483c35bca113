"""CIFAR-100's super-classes (Krizhevsky, 2009, section 3.1): which classes are mistaken."""

from __future__ import annotations

from collections.abc import Sequence

_SUPER_CLASSES = """
beaver dolphin otter seal whale
aquarium_fish flatfish ray shark trout
orchid poppy rose sunflower tulip
bottle bowl can cup plate
apple mushroom orange pear sweet_pepper
clock keyboard lamp telephone television
bed chair couch table wardrobe
bee beetle butterfly caterpillar cockroach
bear leopard lion tiger wolf
bridge castle house road skyscraper
cloud forest mountain plain sea
camel cattle chimpanzee elephant kangaroo
fox porcupine possum raccoon skunk
crab lobster snail spider worm
baby boy girl man woman
crocodile dinosaur lizard snake turtle
hamster mouse rabbit shrew squirrel
maple_tree oak_tree palm_tree pine_tree willow_tree
bicycle bus motorcycle pickup_truck train
lawn_mower rocket streetcar tank tractor
"""

SUPER_CLASSES = tuple(tuple(line.split()) for line in _SUPER_CLASSES.split("\n") if line)
"""The names of the five classes of each of the twenty."""


def super_classes_of(classes: Sequence[str]) -> tuple[int, ...] | None:
    """The super-class of each class, as an index; None if these are not CIFAR-100's classes."""
    found = {name: row for row, names in enumerate(SUPER_CLASSES) for name in names}
    if set(classes) != set(found):
        return None
    return tuple(found[name] for name in classes)
